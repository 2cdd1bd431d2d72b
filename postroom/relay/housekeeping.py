"""Housekeeping: what is done about scheduled events now and then, and never instead of them."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo import errors as mongo

from postroom import errors, private_text
from postroom.doubling import Doubling
from postroom.reminders import Reminders
from postroom.store.checkpoints import Checkpoints
from postroom.store.fired import Fired

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from pymongo.database import Database

    from postroom.partitioning import Partitioning
    from postroom.relay.left_rows import LeftRows
    from postroom.store.due_rows import DueRows
    from postroom.store.values import OutboxPartition

__all__ = ["Housekeeping"]

logger = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
# What is due waits meanwhile. A deletion that takes longer goes on from there the next time.
AT_MOST_SECONDS = 1.0
FIRST_RETRY_SECONDS = 2.0
SAY_AGAIN_SECONDS = 600.0
# One that takes longer than it may is tried again soon, and is none to be told of.
TELL_AFTER_SECONDS = 600.0


class Housekeeping:
    """Lets go of what was fired long ago, and looks for what no relay comes upon.

    Used by the mover's thread alone, between its moves. An error of it is said and is nobody
    else's: what is due goes on being moved, and this is tried again, after longer and longer waits.
    That it takes too long is said where no try has come to its end for ten minutes.
    """

    def __init__(
        self,
        database: Database[Any],
        *,
        partition: OutboxPartition,
        margin: timedelta,
        left: LeftRows,
    ) -> None:
        self._database = database
        self._partition = partition
        self._margin = margin
        self._left = left
        self._due_at = 0.0
        self._failures = Doubling(first=FIRST_RETRY_SECONDS, longest=EVERY_SECONDS)
        self._reminders = Reminders(every_seconds=SAY_AGAIN_SECONDS)
        self._lateness = _Lateness()

    def do_if_due(
        self, rows: DueRows, partitioning: Partitioning, *, closed: Sequence[str]
    ) -> None:
        """Do it once a minute; `closed` are outbox partitions of before, of which rows are left."""
        if time.monotonic() < self._due_at:
            return
        try:
            self._do(rows, partitioning, closed)
        except Exception as error:  # noqa: BLE001 - what is due does not wait for what caused it
            self._due_at = time.monotonic() + self._failures.take()
            if self._lateness.is_to_be_told(error):
                self._say(error)
        else:
            self._due_at = time.monotonic() + EVERY_SECONDS
            self._failures.reset()
            if self._lateness.ends():
                self._say_goes_on()

    def _do(self, rows: DueRows, partitioning: Partitioning, closed: Sequence[str]) -> None:
        self._left.forget()
        try:
            if self._partition == partitioning.names[0]:
                self._left.look(rows, partitioning.base)
        finally:
            with pymongo.timeout(AT_MOST_SECONDS):
                self._forget((self._partition, *closed))

    def _forget(self, partitions: tuple[str, ...]) -> None:
        checkpoint = Checkpoints(self._database).of(self._partition)
        if checkpoint is None or checkpoint.scan is not None or checkpoint.cluster_time is None:
            return
        reached = checkpoint.cluster_time.as_datetime()
        Fired(self._database, partitions).forget(reached - self._margin)

    def _say(self, error: Exception) -> None:
        kind = private_text.described(error)
        if _is_late(error):
            kind += f", in every try for {TELL_AFTER_SECONDS / 60:g} minutes or longer"
        if self._reminders.is_due(kind):
            logger.warning(
                "Scheduled events of outbox partition %r go on, but what was fired long ago could "
                "not be removed from the plan, or what nobody comes upon not be looked for (%s); "
                "it is tried again",
                self._partition,
                kind,
                exc_info=None
                if isinstance(error, (mongo.PyMongoError, errors.PostroomError))
                else error,
                extra={"action": "schedule"},
            )

    def _say_goes_on(self) -> None:
        logger.info(
            "Housekeeping of the scheduled events of outbox partition %r has come to its end again",
            self._partition,
            extra={"action": "schedule"},
        )


class _Lateness:
    """Knows which failed tries are to be told of: one that only took too long if that lasts."""

    def __init__(self) -> None:
        self._late_since: float | None = None
        self._told = False

    def is_to_be_told(self, error: Exception) -> bool:
        """Say whether a failure is to be told of."""
        now = time.monotonic()
        if not _is_late(error):
            self._late_since = None
            self._told = True
            return True
        if self._late_since is None:
            self._late_since = now
        lasts = now - self._late_since >= TELL_AFTER_SECONDS
        self._told = self._told or lasts
        return lasts

    def ends(self) -> bool:
        """Note that it has come to its end; say whether one that did not was told of before."""
        told, self._told, self._late_since = self._told, False, None
        return told


def _is_late(error: Exception) -> bool:
    return bool(getattr(error, "timeout", False))
