"""Holdings: which relay worker serves which outbox partition, and which one wants it.

They are the plan by which workers share the outbox partitions, in the checkpoints' rows. They
protect nothing: what keeps two from relaying the same one is the mutex, the epoch and the fence.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

from postroom import wire
from postroom.store.term_session import end_what_is_open
from postroom.store.values import OutboxPartition
from postroom.wire import CheckpointField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymongo.database import Database

__all__ = ["Holding", "Holdings", "new_row", "read"]

READ_MS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Who took an outbox partition's lock last and has not given it back, and who wants it.

    Each of the two by its name; `is_pinned` and `is_wanted_pinned` where that one is there for this
    outbox partition and no other. While its term lasts, two looks some seconds apart find another
    `sign`, unless it `is_paused`: its epoch, and when its relay last said that it lives.
    """

    partition: OutboxPartition
    holder: str | None = None
    is_pinned: bool = False
    wanted_by: str | None = None
    is_wanted_pinned: bool = False
    is_paused: bool = False
    sign: tuple[int | None, datetime | None] = (None, None)


def read(database: Database[Any], partitions: Sequence[OutboxPartition]) -> list[Holding]:
    """Return a holding for each, whether or not a relay was ever started for it."""
    rows = database[wire.CHECKPOINTS].find(
        {CheckpointField.PARTITION: {"$in": list(partitions)}},
        {
            CheckpointField.ID: 0,
            CheckpointField.PARTITION: 1,
            CheckpointField.HELD_BY: 1,
            CheckpointField.WANTED_BY: 1,
            CheckpointField.PAUSED_BY: 1,
            CheckpointField.EPOCH: 1,
            CheckpointField.ALIVE_AT: 1,
        },
        max_time_ms=READ_MS,
    )
    found = {row[CheckpointField.PARTITION]: _from_row(row) for row in rows}
    return [found.get(each) or Holding(partition=each) for each in partitions]


class Holdings:
    """Writes who has what, on behalf of one relay worker. Thread-safe."""

    def __init__(self, database: Database[Any], *, worker: str, pinned: bool) -> None:
        self._rows = database[wire.CHECKPOINTS]
        self._me = {CheckpointField.WORKER: worker, CheckpointField.PINNED: pinned}
        self._name = worker

    def take(self, partition: OutboxPartition) -> None:
        """Note that this worker has the lock; who wanted the partition has to want it anew."""
        update = {
            "$set": {CheckpointField.HELD_BY: self._me},
            "$unset": {CheckpointField.WANTED_BY: ""},
            "$setOnInsert": new_row(datetime.now(UTC)),
        }
        about = {CheckpointField.PARTITION: partition}
        end_what_is_open(self._rows.database, partition)
        try:
            self._rows.update_one(about, update, upsert=True)
        except mongo.DuplicateKeyError:
            self._rows.update_one(about, update)

    def give(self, partition: OutboxPartition) -> None:
        """Note that this worker has given the lock back."""
        self._rows.update_one(
            {
                CheckpointField.PARTITION: partition,
                f"{CheckpointField.HELD_BY}.{CheckpointField.WORKER}": self._name,
            },
            {"$unset": {CheckpointField.HELD_BY: ""}},
        )

    def want(self, partition: OutboxPartition, *, of: str) -> None:
        """Ask `of`, who has it, for an outbox partition; no one else's wish is replaced."""
        about: dict[str, Any] = {
            CheckpointField.PARTITION: partition,
            f"{CheckpointField.HELD_BY}.{CheckpointField.WORKER}": of,
        }
        if not self._me[CheckpointField.PINNED]:
            about[CheckpointField.WANTED_BY] = None
        self._rows.update_one(about, {"$set": {CheckpointField.WANTED_BY: self._me}})

    def decline(self, partition: OutboxPartition, *, wanted_by: str) -> None:
        """Strike out a wish that is not met."""
        self._rows.update_one(
            {
                CheckpointField.PARTITION: partition,
                f"{CheckpointField.WANTED_BY}.{CheckpointField.WORKER}": wanted_by,
            },
            {"$unset": {CheckpointField.WANTED_BY: ""}},
        )


def new_row(now: datetime) -> dict[str, Any]:
    """Return what Hermes expects in a checkpoint's row, as it is before the first term."""
    return {
        CheckpointField.LAST_ID: None,
        CheckpointField.RESUME_TOKEN: None,
        CheckpointField.CREATED_AT: now,
        CheckpointField.UPDATED_AT: None,
    }


def _from_row(row: Mapping[str, Any]) -> Holding:
    holder, is_pinned = _worker(row.get(CheckpointField.HELD_BY))
    wanted_by, is_wanted_pinned = _worker(row.get(CheckpointField.WANTED_BY))
    return Holding(
        partition=OutboxPartition(row[CheckpointField.PARTITION]),
        holder=holder,
        is_pinned=is_pinned,
        wanted_by=wanted_by,
        is_wanted_pinned=is_wanted_pinned,
        is_paused=row.get(CheckpointField.PAUSED_BY) is not None,
        sign=(row.get(CheckpointField.EPOCH), row.get(CheckpointField.ALIVE_AT)),
    )


def _worker(stored: object) -> tuple[str | None, bool]:
    if not isinstance(stored, dict):
        return None, False
    name = stored.get(CheckpointField.WORKER)
    if not isinstance(name, str):
        return None, False
    return name, stored.get(CheckpointField.PINNED) is True
