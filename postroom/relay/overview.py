"""Overview: how far each partition is relayed, as the database alone can tell."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from postroom import errors, wire
from postroom.relay.stream import replies
from postroom.store.checkpoints import Checkpoint, Checkpoints
from postroom.store.outbox_rows import OutboxRows
from postroom.store.quarantine import Quarantine

if TYPE_CHECKING:
    from pymongo.database import Database

__all__ = ["MOST_COUNTED", "Overview", "overview"]

# Waiting rows are counted by reading the change stream; behind this many it matters no more.
MOST_COUNTED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """One partition.

    `owner` is the relay that last took office, in `epoch`, at `since`; whether it still lives, its
    mutex tells. `waiting` counts the rows behind the checkpoint, at most MOST_COUNTED, and is None
    where that cannot be told. `reached` is up to when the outbox is relayed.
    """

    partition: str
    owner: str | None
    epoch: int | None
    since: datetime | None
    position: int | None
    last_relayed_row: str | None
    checkpointed_at: datetime | None
    reached: datetime | None
    waiting: int | None
    scanning: bool
    topics: list[str]
    quarantined: int


def overview(database: Database[Any]) -> list[Overview]:
    """Return an overview of every partition that a relay was ever started for, by name."""
    return [_of(database, checkpoint) for checkpoint in Checkpoints(database).all()]


def _of(database: Database[Any], checkpoint: Checkpoint) -> Overview:
    reached, last = checkpoint.cluster_time, checkpoint.last_id
    return Overview(
        partition=checkpoint.partition,
        owner=checkpoint.owner,
        epoch=checkpoint.epoch or None,
        since=checkpoint.owned_at,
        position=checkpoint.position or None,
        last_relayed_row=None if last is None else str(last),
        checkpointed_at=checkpoint.updated_at,
        reached=datetime.fromtimestamp(reached.time, UTC) if reached else None,
        waiting=_waiting(database, checkpoint),
        scanning=checkpoint.scan is not None,
        topics=list(checkpoint.lanes),
        quarantined=Quarantine(database, partition=checkpoint.partition).count(),
    )


def _waiting(database: Database[Any], checkpoint: Checkpoint) -> int | None:
    partition, token = checkpoint.partition, checkpoint.token
    if checkpoint.scan is not None:
        return None
    if token is None:
        return OutboxRows(database, partition=partition).count(limit=MOST_COUNTED)
    count = 0
    try:
        for reply in replies(database[wire.OUTBOX], partition=partition, token=token):
            count += reply.rows
            if not reply.rows or count >= MOST_COUNTED:
                return min(count, MOST_COUNTED)
    except errors.HistoryLost:
        return None
    return count
