"""Unattended rows: those of outbox partitions that no relay was ever started for."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo import DESCENDING
from pymongo import errors as mongo

from postroom import tracing, wire
from postroom.relay.watching import backlog
from postroom.store.checkpoints import Checkpoints
from postroom.store.codec import SHOWING
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymongo.database import Database

    from postroom.relay.watching.backlog import Backlog

__all__ = ["Bystander", "FoundPartitions", "Unattended", "find"]

logger = logging.getLogger(__name__)

MOST_FOUND = 50
# Another relay of the same worker takes office about now, and makes its checkpoint.
LOOK_AFTER_SECONDS = 2.0
LOOK_AGAIN_SECONDS = 300.0
LOOK_SECONDS = 2.0
OLDEST, NEWEST = 1, DESCENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Unattended:
    """One outbox partition that has rows and no checkpoint, and what waits there."""

    partition: str
    backlog: Backlog


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPartitions:
    """What was found of them; all there are only if `complete`."""

    partitions: Sequence[Unattended]
    complete: bool


def find(database: Database[Any], *, known: Sequence[str], seconds: float) -> FoundPartitions:
    """Look for outbox partitions beside the known ones, for some seconds and fifty of them.

    From the oldest row on: what nobody relays nobody prunes. Where all rows cannot be looked at in
    half of that time, from the newest one back.
    """
    end = time.monotonic() + seconds
    values: list[Any] = list(known)
    complete = _collect(database, values, OLDEST, seconds / 2)
    if not complete:
        _collect(database, values, NEWEST, seconds / 4)
    found, values = [], values[len(known) :]
    for index, value in enumerate(values):
        part_seconds = (end - time.monotonic()) / (len(values) - index)
        waiting = backlog.in_collection(database, value, seconds=part_seconds)
        found.append(Unattended(partition=_named(value), backlog=waiting))
    return FoundPartitions(partitions=found, complete=complete)


def _collect(database: Database[Any], values: list[Any], order: int, seconds: float) -> bool:
    """Add the values beside those to them, one find for each; return whether these are all."""
    outbox = database[wire.OUTBOX].with_options(codec_options=SHOWING)
    most = len(values) + MOST_FOUND
    try:
        with pymongo.timeout(max(seconds, 0.001)):
            while len(values) < most:
                row = outbox.find_one(
                    {OutboxField.PARTITION: {"$nin": values}},
                    {OutboxField.PARTITION: 1, OutboxField.ID: 0},
                    sort=[("$natural", order)],
                )
                if row is None:
                    return True
                value = row.get(OutboxField.PARTITION)
                if value in values:
                    break  # it cannot be asked for by what was decoded
                values.append(value)
    except mongo.PyMongoError as error:
        if not error.timeout:
            raise
    return False


def _named(value: Any) -> str:
    return value if isinstance(value, str) else f"{value!r} (no text)"


class Bystander:
    """Says once what rows a relay sees that no relay was ever started for; beside its terms.

    start() and stop() around a term, any number of times; in each it looks soon, and again every
    `again_seconds`, in a thread. That of the term before may be at its last look still: what it
    says at the same time is said twice at worst.
    """

    def __init__(self, *, again_seconds: float = LOOK_AGAIN_SECONDS) -> None:
        self._again_seconds = again_seconds
        self._said: set[str] = set()
        self._stopping = threading.Event()

    def start(self, database: Database[Any]) -> None:
        """Look soon and regularly, in a thread of its own."""
        stopping = self._stopping = threading.Event()
        threading.Thread(
            target=tracing.silently(self._keep_looking),
            args=(database, stopping),
            name="relay-bystander",
            daemon=True,
        ).start()

    def stop(self) -> None:
        """Have the thread end before it looks again; it is not waited for."""
        self._stopping.set()

    def _keep_looking(self, database: Database[Any], stopping: threading.Event) -> None:
        seconds = LOOK_AFTER_SECONDS
        while not stopping.wait(seconds):
            self._look(database)
            seconds = self._again_seconds

    def _look(self, database: Database[Any]) -> None:
        try:
            known = [each.partition for each in Checkpoints(database).all()]
            found = find(database, known=known, seconds=LOOK_SECONDS)
        except Exception as error:  # noqa: BLE001 - the relay itself finds out what ails MongoDB
            logger.debug("Unattended rows were not looked for (%s)", type(error).__name__)
            return
        if found.complete:
            self._said.intersection_update(each.partition for each in found.partitions)
        for each in found.partitions:
            if each.partition not in self._said:
                self._said.add(each.partition)
                self._say(each)

    def _say(self, found: Unattended) -> None:
        logger.warning(
            "%s%d rows of outbox partition %r wait, and no relay was ever started for it: start a "
            "relay for it, or mend the writer's POSTROOM_PARTITION; until then they stay",
            "At least " if found.backlog.at_least else "",
            found.backlog.rows,
            found.partition,
            extra={"action": "unattended"},
        )
