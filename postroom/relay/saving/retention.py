"""Retention: relayed rows are pruned from the outbox, an unsent one never."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bson import ObjectId
from pymongo import errors as mongo

from postroom import private_text, tracing
from postroom.store.checkpoints import Checkpoints
from postroom.store.clients import operation_time
from postroom.store.outbox_rows import OutboxRows
from postroom.store.relayed import comes_past

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bson import Binary, Timestamp
    from pymongo.database import Database

    from postroom.store.quarantine import Quarantine
    from postroom.store.values import OutboxPartition

__all__ = ["Retention"]

logger = logging.getLogger(__name__)

ROWS_A_DELETE = 1000
ROWS_A_LOOK = 50_000
PAUSE_SECONDS = 0.05
EVERY_SECONDS = 30.0


class Retention:
    """Prunes one outbox partition while this relay is active; start() and stop() around a term.

    A row goes when its ObjectId is older than `age`, and when it was relayed: when it was there, in
    the very collection that the checkpoint speaks of, at the cluster time that the checkpoint has
    reached. So no unsent row is ever deleted, however old its id, and none needs a second write.
    Quarantined rows stay, and those that were put back from there for the `margin` of a scan.
    start() and stop() are the relay's thread's; prune(), which tells `pruned`, is its own thread's,
    or that of a command which has no other.
    """

    def __init__(
        self,
        database: Database[Any],
        quarantine: Quarantine,
        *,
        partition: OutboxPartition,
        age: timedelta,
        margin: timedelta,
        pruned: Callable[[int], None],
    ) -> None:
        self._database = database
        self._rows = OutboxRows(database, partition=partition)
        self._checkpoints = Checkpoints(database)
        self._quarantine = quarantine
        self._partition = partition
        self._age = age
        self._margin = margin
        self._pruned = pruned
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=tracing.silently(self._loop), name="relay-retention", daemon=True
        )

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it is not waited for, a delete in flight does no harm."""
        self._stopping.set()

    def _loop(self) -> None:
        while not self._stopping.wait(EVERY_SECONDS):
            try:
                self.prune()
            except Exception as error:  # the thread must not end without a word
                # Pruning is never urgent; the relay itself finds out what ails MongoDB.
                expected = isinstance(error, mongo.PyMongoError)
                logger.warning(
                    "Pruning the outbox failed (%s); it is tried again",
                    private_text.described(error),
                    exc_info=None if expected else error,
                )

    def count(self) -> int:
        """Return how many rows may go now; changes nothing."""
        reached, collection = self._reached()
        if reached is None or collection is None or collection != self._rows.collection():
            return 0
        return sum(map(len, self._doomed(reached, collection)))

    def prune(self) -> int:
        """Delete all that may go, by small ranges, and return how many rows that were."""
        reached, collection = self._reached()
        if reached is None or collection is None:
            return 0
        self._quarantine.forget_retried(reached.as_datetime() - self._margin)
        total = 0
        for doomed in self._doomed(reached, collection):
            deleted = self._rows.delete_from(collection, doomed)
            if deleted is None:
                break
            total += deleted
            self._pruned(deleted)
            self._stopping.wait(PAUSE_SECONDS)
        return total

    def _reached(self) -> tuple[Timestamp | None, Binary | None]:
        checkpoint = self._checkpoints.of(self._partition)
        if checkpoint is None or checkpoint.scan is not None:
            return None, None
        return checkpoint.cluster_time, checkpoint.collection

    def _doomed(self, reached: Timestamp, collection: Binary) -> Iterator[list[ObjectId]]:
        for ids in self._relayed(reached, collection):
            kept = self._quarantine.among(ids)
            yield [row_id for row_id in ids if row_id not in kept]

    def _relayed(self, reached: Timestamp, collection: Binary) -> Iterator[list[ObjectId]]:
        """Yield the ids of rows that are old enough, and were there when all was relayed."""
        cutoff, after = ObjectId.from_datetime(datetime.now(UTC) - self._age), None
        while not self._stopping.is_set():
            ids = self._rows.oldest_ids(at=reached, before=cutoff, after=after, limit=ROWS_A_DELETE)
            if ids is None:
                ids = self._relayed_meanwhile(cutoff, after, collection)
            if not ids:
                return
            for start in range(0, len(ids), ROWS_A_DELETE):
                yield ids[start : start + ROWS_A_DELETE]
            after = ids[-1]

    def _relayed_meanwhile(
        self, cutoff: ObjectId, after: ObjectId | None, collection: Binary
    ) -> list[ObjectId]:
        """Return the ids of rows that are there now, once all that is there now was relayed.

        Where MongoDB cannot tell any more what was there at the checkpoint's time.
        """
        ids = self._rows.oldest_ids(at=None, before=cutoff, after=after, limit=ROWS_A_LOOK) or []
        now = operation_time(self._database)
        relayed = bool(ids) and comes_past(
            self._database, self._partition, now, collection=collection, over=self._stopping
        )
        return ids if relayed else []
