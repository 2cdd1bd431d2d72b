"""The scan: the collection itself, page by page, with the change stream read beside it.

Each phase of it reads pages as they were at one cluster time, newer than where the stream stands;
then the stream is read past that time. What it shows of rows that were sent is left out, and so
is what the next pages will show; the rest, rows that were committed late, is sent in its place. So
the stream is never far behind, no snapshot has to last, and where the scan has come to fits into
the checkpoint: stream token, last id, and the time of the last phase.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bson import ObjectId

from postroom import errors, wire
from postroom.relay.reading.batch import BATCH_ROWS, Batch
from postroom.relay.reading.pages import Pages, ScanSpan
from postroom.relay.reading.stream import has_passed, replies
from postroom.store import codec
from postroom.store.checkpoints import Point
from postroom.store.moment import SnapshotGone, snapshot_time
from postroom.store.scans import Frontier, Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bson import Timestamp
    from pymongo.database import Database

    from postroom.relay.reading.pages import Page
    from postroom.relay.reading.stream import Reply
    from postroom.store.codec import Row
    from postroom.store.order import Bound
    from postroom.store.values import OutboxPartition, ResumeToken

__all__ = ["REPLACED", "CollectionScan"]

logger = logging.getLogger(__name__)

REPLACED = (
    "The outbox collection was dropped, renamed or replaced: what was written before is relayed, "
    "and a new term sends what it holds now and the topics lack"
)
# Enough pages for the stream's own round trip not to count; few enough for a short oplog.
PHASE_SECONDS = 0.5
LONGEST_PHASE_SECONDS = 60.0
# Where the stream was slow to come past a phase, as on an idle sharded cluster, phases are longer.
PHASE_TO_STREAM = 10.0
AWAIT_MS = 20
REMIND_SECONDS = 10.0
SNAPSHOT_TRIES = 20
SNAPSHOT_PAUSE_SECONDS = 0.5
# A collection that was replaced may still be being restored, with rows that were sent long ago. For
# so long after the last row that is LATE, what the topics had is still left out.
SETTLING_SECONDS = 30.0
LATE = timedelta(minutes=1)
SIGN_SECONDS = 5.0


class CollectionScan:
    """One term's part of a scan. batches() once, in one thread.

    `left_out_until` is the highest ObjectId among what the topics had behind their marks when the
    term was opened, None if they had nothing: until the scan is behind it, those marks stay.
    `has_room` says whether another batch would be taken at once; the stream is read meanwhile.
    `replaced` says what is to be scanned where the collection is replaced.
    """

    def __init__(
        self,
        reading: Database[Any],
        *,
        partition: OutboxPartition,
        token: ResumeToken,
        scan: Scan,
        left_out_until: ObjectId | None,
        has_room: Callable[[], bool],
        replaced: Callable[[], Scan],
    ) -> None:
        span = ScanSpan(partition=partition, since=scan.since)
        self._pages = Pages(reading, span)
        self._beside = _Beside(reading, span, token)
        self._scan = scan
        self._left_out_until = left_out_until
        self._has_room = has_room
        self._replaced = replaced
        self._progress = _Progress(partition)
        self._seconds = PHASE_SECONDS

    def batches(self) -> Iterator[Batch]:
        """Yield the rest of the scan; the last batch has a point without a scan.

        Where the collection is replaced meanwhile, the last one says so instead.
        """
        with contextlib.closing(self._beside):
            while (frontier := self._scan.frontier) is None or not frontier.last:
                if frontier is not None:
                    yield from self._catch_up(frontier)
                if not self._beside.is_over:
                    yield from self._phase()
                if self._beside.is_over:
                    return
            yield from self._catch_up(frontier)
            if self._scan.replaced:
                yield from self._settle(frontier)
        if not self._beside.is_over:
            self._progress.end()
            yield Batch(point=Point(token=self._beside.token))

    # --- the collection ----------------------------------------------------------------------

    def _phase(self) -> Iterator[Batch]:
        """Read pages as they are at one time, until the stream should be looked after."""
        before = None if self._scan.frontier is None else self._scan.frontier.sent
        began, page = time.monotonic(), self._first_page(before)
        while True:
            frontier = Frontier(at=page.at, before=before, sent=page.reached, last=page.is_last)
            self._scan = dataclasses.replace(self._scan, frontier=frontier, stream_lost=False)
            self._progress.count(len(page.documents))
            yield self._batch(page.slices())
            is_long = time.monotonic() - began > self._seconds
            if page.is_last or is_long or not self._has_room():
                return
            try:
                page = self._pages.read(at=page.at, after=page.reached)
            except SnapshotGone:
                # Sending was slow; the next phase goes on from here at another time.
                return

    def _first_page(self, after: Bound | None) -> Page:
        for _ in range(SNAPSHOT_TRIES):
            with contextlib.suppress(SnapshotGone):
                page = self._pages.read(at=None, after=after)
                if self._beside.floor is None or page.at >= self._beside.floor:
                    return page
            time.sleep(SNAPSHOT_PAUSE_SECONDS)
        raise errors.TermEnded(
            "MongoDB has no snapshot of the outbox that is as new as its change stream; a new term "
            "goes on with the scan"
        )

    def _batch(self, slices: Iterable[Sequence[Row]]) -> Batch:
        covers_tails = self._has_met_tails()
        if covers_tails and not (self._scan.replaced or self._scan.first):
            self._scan = dataclasses.replace(self._scan, published_since=None)
        point = Point(token=self._beside.token, scan=self._scan, covers_tails=covers_tails)
        return Batch(slices=slices, point=point)

    def _has_met_tails(self) -> bool:
        """Say whether pages and stream are behind all that the topics had when the term was opened.

        What comes from one of them may be on a topic behind what the other one is still to meet.
        """
        highest = self._left_out_until
        if highest is None:
            return True
        reached = None if self._scan.frontier is None else self._scan.frontier.sent
        if reached is None or not reached.is_object_id:
            return False
        return reached.covers(highest) and self._beside.is_behind_opening

    # --- the stream --------------------------------------------------------------------------

    def _catch_up(self, frontier: Frontier) -> Iterator[Batch]:
        """Read the stream past the time of the last page, and until there is room for the next."""
        took, has_passed_it = 0.0, False
        while not (has_passed_it and self._has_room()) and not self._beside.is_over:
            began = time.monotonic()
            reply = self._beside.read(frontier)
            if not has_passed_it:
                took += time.monotonic() - began
                has_passed_it = has_passed(reply, frontier.at)
            if self._beside.has_many:
                yield self._late_rows()
        self._seconds = min(max(PHASE_SECONDS, took * PHASE_TO_STREAM), LONGEST_PHASE_SECONDS)
        yield self._late_rows()

    def _settle(self, frontier: Frontier) -> Iterator[Batch]:
        """Wait until nobody inserts old rows any more; what the topics had is left out."""
        quiet_since = told_at = time.monotonic()
        while time.monotonic() - quiet_since < SETTLING_SECONDS and not self._beside.is_over:
            reply = self._beside.read(frontier)
            if any(map(_is_late, reply.committed())):
                quiet_since = time.monotonic()
            # Without rows too, or it would seem that MongoDB does not answer.
            if reply.rows or self._beside.is_over or time.monotonic() - told_at > SIGN_SECONDS:
                told_at = time.monotonic()
                yield self._late_rows()

    def _late_rows(self) -> Batch:
        rows = self._beside.take()
        slices = [rows] if rows else []
        if not self._beside.is_over:
            return self._batch(slices)
        point = Point(token=self._beside.token, scan=self._replaced())
        return Batch(slices=slices, point=point, ends_with=REPLACED)


class _Beside:
    """The change stream as it is read beside the pages: what of it the pages do not show."""

    def __init__(self, reading: Database[Any], span: ScanSpan, token: ResumeToken) -> None:
        self.token = token
        # No page may be older than what the stream has shown.
        self.floor = token.cluster_time
        self.is_over = False
        self._span = span
        self._opened = snapshot_time(reading)
        self._rows: list[Row] = []
        self._stream = replies(
            reading[wire.OUTBOX], partition=span.partition, token=token, await_ms=AWAIT_MS
        )

    def close(self) -> None:
        self._stream.close()

    @property
    def is_behind_opening(self) -> bool:
        """Whether all that was committed before this object was made has been read."""
        reached = self.token.cluster_time
        return reached is not None and reached > self._opened

    @property
    def has_many(self) -> bool:
        return len(self._rows) >= BATCH_ROWS

    def take(self) -> list[Row]:
        """Return what is to be sent of what was read so far."""
        taken, self._rows = self._rows, []
        return taken

    def read(self, frontier: Frontier) -> Reply:
        reply = next(self._stream)
        for committed, row in reply.committed():
            self.floor = max(filter(None, (self.floor, committed)), default=None)
            if not self._is_left_out(committed, row, frontier):
                self._rows.append(row)
        self.token, self.is_over = reply.token, reply.is_last
        return reply

    def _is_left_out(self, committed: Timestamp | None, row: Row, frontier: Frontier) -> bool:
        row_id = codec.id_of(row)
        if isinstance(row, codec.Unreadable) and row_id is None:
            return False
        return self._span.covers(row) and frontier.leaves_out(committed, row_id)


def _is_late(change: tuple[Timestamp | None, Row]) -> bool:
    committed, row = change
    row_id = codec.id_of(row)
    if committed is None or not isinstance(row_id, ObjectId):
        return True
    return row_id.generation_time < committed.as_datetime() - LATE


class _Progress:
    """Says how far a scan is, every ten seconds."""

    def __init__(self, partition: OutboxPartition) -> None:
        self._partition = partition
        self._began = self._said = time.monotonic()
        self._rows = self._rows_said = 0

    def count(self, rows: int) -> None:
        self._rows += rows
        now = time.monotonic()
        if (since := now - self._said) > REMIND_SECONDS:
            logger.info(
                "The scan of outbox partition %r has read %d rows so far, %d a second",
                self._partition,
                self._rows,
                (self._rows - self._rows_said) / since,
                extra={"action": "scan"},
            )
            self._said, self._rows_said = now, self._rows

    def end(self) -> None:
        logger.info(
            "The scan of outbox partition %r has read its last row, %d in this term within %.1f s; "
            "the change stream goes on from there",
            self._partition,
            self._rows,
            time.monotonic() - self._began,
            extra={"action": "scan"},
        )
