"""The origin of a term's rows: the change stream, or before it the collection itself."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from postroom import wire
from postroom.relay.batch import Batch
from postroom.relay.scan import scan, snapshot_time
from postroom.relay.stream import open_stream, stream
from postroom.store.checkpoints import Point, Scan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from pymongo.database import Database

    from postroom.store.checkpoints import Checkpoint, CheckpointStore
    from postroom.store.quarantine import Quarantine
    from postroom.store.values import OutboxPartition, ResumeToken

__all__ = ["Origin"]

logger = logging.getLogger(__name__)


class Origin:
    """Says where one outbox partition's rows come from, and notes in the checkpoint what that is.

    `reading` is the database by a client whose reads may last as long as they need.
    """

    def __init__(
        self,
        reading: Database[Any],
        *,
        checkpoints: CheckpointStore,
        quarantine: Quarantine,
        partition: OutboxPartition,
        margin: timedelta,
    ) -> None:
        self._reading = reading
        self._checkpoints = checkpoints
        self._quarantine = quarantine
        self._partition = partition
        self._margin = margin

    def open(self, checkpoint: Checkpoint) -> Iterator[Batch]:
        """Return the batches of a term that begins with this checkpoint, for ever.

        The first of them may be asked for in another thread. A scan is over with the first batch
        that has a point.
        """
        if checkpoint.scan is None and checkpoint.token is not None:
            return self._stream(checkpoint.token)
        return self._from_collection(checkpoint)

    def _stream(self, token: ResumeToken) -> Iterator[Batch]:
        return stream(self._reading[wire.OUTBOX], partition=self._partition, token=token)

    def _from_collection(self, checkpoint: Checkpoint) -> Iterator[Batch]:
        partition, noted = self._partition, checkpoint.scan or Scan()
        at = snapshot_time(self._reading)
        retried = self._quarantine.retried_since(noted.since, at=at) if noted.since else []
        token = open_stream(self._reading[wire.OUTBOX], partition=partition, after=at)
        if checkpoint.scan is None:
            self._checkpoints.begin_scan(noted, token=token)
        logger.info(
            "Outbox partition %r is relayed from the collection first%s",
            partition,
            f", rows since {noted.since:%Y-%m-%d %H:%M}" if noted.since else "",
            extra={"action": "scan", "epoch": checkpoint.epoch},
        )
        rows = scan(self._reading, partition=partition, at=at, since=noted.since, retried=retried)
        return self._scan_then_stream(rows, token)

    def _scan_then_stream(self, rows: Iterator[Batch], token: ResumeToken) -> Iterator[Batch]:
        yield from rows
        yield Batch(point=Point(token=token))
        yield from self._stream(token)

    def lose_history(self) -> None:
        """Note that the stream no longer reaches back to the checkpoint: the next term scans."""
        checkpoint = self._checkpoints.current()
        if checkpoint.scan is not None or checkpoint.token is None:
            return  # the collection is to be scanned anyway
        # Hermes moves the token only, and a mangled token tells nothing.
        marks = (checkpoint.token.cluster_time, checkpoint.cluster_time)
        mark = max((each for each in marks if each is not None), default=None)
        reached = datetime.fromtimestamp(mark.time, UTC) if mark else None
        beginning = datetime.fromtimestamp(1, UTC)
        self._checkpoints.begin_scan(
            Scan(
                since=reached and reached - self._margin,
                # A row's clock may be ahead of the server's by as much as the margin.
                published_since=reached - 2 * self._margin if reached else beginning,
            )
        )
