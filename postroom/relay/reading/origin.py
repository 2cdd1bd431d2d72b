"""The origin of a term's rows: the change stream, or before it the collection itself."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bson import ObjectId

from postroom import wire
from postroom.relay.reading import pages
from postroom.relay.reading.batch import Batch
from postroom.relay.reading.exchange import applied_time, looked_through, proven
from postroom.relay.reading.gathering import GATHERING
from postroom.relay.reading.scan import REPLACED, CollectionScan
from postroom.relay.reading.stream import has_passed, open_stream, replies
from postroom.relay.reading.undecided import undecided
from postroom.store.checkpoints import Point
from postroom.store.codec import id_of
from postroom.store.fired import Fired
from postroom.store.moment import Moment, at_one_time, snapshot_time
from postroom.store.order import Bound
from postroom.store.outbox_rows import OutboxRows
from postroom.store.scans import Frontier, Scan
from postroom.store.settled import Settled

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from datetime import timedelta

    from bson import Binary, Timestamp
    from pymongo.database import Database

    from postroom.relay.reading.stream import Reply
    from postroom.store.checkpoints import Checkpoint, CheckpointStore
    from postroom.store.codec import Row
    from postroom.store.quarantine import Quarantine
    from postroom.store.values import OutboxPartition, ResumeToken

__all__ = ["Origin"]

logger = logging.getLogger(__name__)

BEGINNING = datetime.fromtimestamp(1, UTC)


class Origin:
    """Says where one outbox partition's rows come from, and notes in the checkpoint what that is.

    `reading` is the database by a client whose reads may last as long as they need: it is used
    where batches are asked for, and nowhere else. `margin` covers the longest transaction and the
    writers' clock skew together; `kept` is for how long relayed rows stay in the outbox, None for
    ever.
    """

    def __init__(
        self,
        database: Database[Any],
        *,
        reading: Database[Any],
        checkpoints: CheckpointStore,
        quarantine: Quarantine,
        partition: OutboxPartition,
        margin: timedelta,
        kept: timedelta | None,
    ) -> None:
        self._database = database
        self._reading = reading
        self._rows = OutboxRows(database, partition=partition)
        self._checkpoints = checkpoints
        self._quarantine = quarantine
        self._partition = partition
        self._margin = margin
        self._kept = kept

    def due(self, checkpoint: Checkpoint, *, look_back: timedelta | None) -> Checkpoint:
        """Return a checkpoint with the scan that is due where it has neither token nor scan.

        A relay's first one, or the checkpoint was removed: then the topics have rows already. They
        are looked at from that long before the oldest row was written, None for not at all.
        """
        if checkpoint.token is not None or checkpoint.scan is not None:
            return checkpoint
        published_since = None
        if look_back is not None:
            since = pages.first_written(self._database, self._partition)
            published_since = BEGINNING if since is None else since - look_back
        first = Scan(published_since=published_since, stream_lost=True, first=True)
        return dataclasses.replace(checkpoint, scan=first)

    def open(
        self,
        checkpoint: Checkpoint,
        *,
        left_out_until: ObjectId | None = None,
        has_room: Callable[[], bool] = lambda: True,
        gather: Callable[[], None] = GATHERING.wait,
    ) -> Iterator[Batch]:
        """Return the batches of a term that begins with this checkpoint, for ever.

        They are asked for in one other thread, where begin_scan() of the checkpoint is then called
        too. A scan is over with the first point that has none. `left_out_until` is the highest
        ObjectId in the tails, None if they are empty; `has_room` says whether another batch would
        be taken at once, `gather` waits for as long as rows are to gather behind few.
        """
        token, noted = checkpoint.token, checkpoint.scan
        scanned = functools.partial(
            self._scanned,
            left_out_until=left_out_until,
            has_room=has_room,
            gather=gather,
            settled=Settled(
                self._database, partition=self._partition, position=checkpoint.position
            ),
        )
        if token is None or (noted is not None and noted.stream_lost):
            due = noted or Scan(stream_lost=True)
            return self._known(self._begun_scan(due, scanned, epoch=checkpoint.epoch))
        if noted is None:
            batches = self._streamed(token, gather, of=checkpoint.collection)
        elif noted.stream_first:
            batches = self._streamed_before_scan(token, noted)
        else:
            batches = scanned(token, noted)
        return self._known(proven(batches, database=self._reading, token=token))

    def _known(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Add the collection's UUID to each point that is sure to be about that one."""
        collection = self._rows.collection()
        since = snapshot_time(self._reading)
        for batch in batches:
            point = batch.point
            reached = None if point is None else point.token.cluster_time
            if point is None or reached is None or reached <= since or collection is None:
                yield batch
            else:
                known = dataclasses.replace(point, collection=collection)
                yield dataclasses.replace(batch, point=known)

    # --- the stream --------------------------------------------------------------------------

    def _replies(
        self, token: ResumeToken, gather: Callable[[], None] = GATHERING.wait
    ) -> Generator[Reply, None, None]:
        outbox = self._reading[wire.OUTBOX]
        return replies(outbox, partition=self._partition, token=token, gather=gather)

    def _streamed(
        self, token: ResumeToken, gather: Callable[[], None], *, of: Binary | None = None
    ) -> Iterator[Batch]:
        """Return what the stream has behind the token; `of` is the collection that it is about."""
        if of is not None and self._rows.collection() not in {of, None}:
            with contextlib.closing(self._replies(token)) as looked_at:
                for _ in looked_through(looked_at, until=applied_time(self._reading)):
                    yield Batch(slices=[], point=None)
        for reply in self._replies(token, gather):
            if reply.is_last:
                point = Point(token=reply.token, scan=self._replaced())
                yield Batch(slices=reply.slices(), point=point, ends_with=REPLACED)
            else:
                point = Point(token=reply.token)
                yield Batch(
                    slices=reply.slices(),
                    point=point,
                    size=len(reply.raw),
                    committed_at=reply.committed_at,
                )

    def _streamed_before_scan(self, token: ResumeToken, noted: Scan) -> Iterator[Batch]:
        """Relay what the stream has of collections that may be gone again, up to now."""
        now, at_rest = snapshot_time(self._reading), False
        while not at_rest:
            # Behind each time that the collection is replaced there is another stream.
            for reply in self._replies(token):
                token = reply.token
                yield Batch(slices=reply.slices(), point=Point(token=token, scan=noted))
                at_rest = not reply.is_last and has_passed(reply, now)
                if at_rest:
                    break
        due = dataclasses.replace(self._replaced(), stream_first=False)
        yield Batch(point=Point(token=token, scan=due), ends_with=REPLACED)

    def _replaced(self) -> Scan:
        """Return the scan that is due where the collection is not the one that it was.

        What came with it may be as old as its oldest row. What is restored into it may be as old as
        rows get.
        """
        since = pages.written_since(self._database)
        if since is None or self._kept is None:
            published_since = BEGINNING
        else:
            published_since = min(since, datetime.now(UTC) - self._kept) - 2 * self._margin
        return Scan(published_since=published_since, replaced=True, stream_first=True)

    # --- the collection ----------------------------------------------------------------------

    def _begun_scan(
        self,
        noted: Scan,
        scanned: Callable[[ResumeToken, Scan], Iterator[Batch]],
        *,
        epoch: int,
    ) -> Iterator[Batch]:
        """Begin the stream anew, and the scan with it.

        First what was put back from quarantine, or was scheduled and is fired, and stands where the
        scan does not look.
        """
        unseen, at = self._unseen(noted)
        token = open_stream(self._reading[wire.OUTBOX], partition=self._partition, after=at)
        if noted.frontier is not None:
            sent = noted.frontier.sent
            noted = dataclasses.replace(noted, frontier=Frontier(at=at, before=sent, sent=sent))
        # Hermes skips all that is stored where it finds no token. In this term alone: its reader is
        # not waited for, and the next term may be far into its scan.
        self._checkpoints.begin_scan(noted, token=token, epoch=epoch)
        span = pages.ScanSpan(partition=self._partition, since=noted.since)
        for rows in pages.rows_of(self._reading, span, unseen, after=at):
            # As they are by now: of what is put back later the stream tells.
            missed = [row for row in rows if not _will_be_read(row, span, noted.frontier)]
            yield Batch(slices=[missed] if missed else [], point=None)
        yield from scanned(token, noted)

    def _scanned(
        self,
        token: ResumeToken,
        noted: Scan,
        *,
        left_out_until: ObjectId | None,
        has_room: Callable[[], bool],
        gather: Callable[[], None],
        settled: Settled,
    ) -> Iterator[Batch]:
        _say(self._partition, noted)
        scan = CollectionScan(
            self._reading,
            partition=self._partition,
            token=token,
            scan=noted,
            left_out_until=left_out_until,
            has_room=has_room,
            replaced=self._replaced,
        )
        for batch in scan.batches():
            yield dataclasses.replace(batch, slices=undecided(batch.slices, settled))
            if batch.point is not None and batch.point.scan is None:
                yield from self._streamed(batch.point.token, gather)

    def _unseen(self, noted: Scan) -> tuple[list[Any], Timestamp]:
        """Return what was put back or fired by now, and the time that this is."""
        since = noted.published_since
        if since is None or (noted.since is None and noted.frontier is None):
            return [], snapshot_time(self._reading)  # the scan shows all of it
        # Of what was fired most have an id that the scan comes to.
        first = pages.ScanSpan(partition=self._partition, since=noted.since).first
        before = first if noted.frontier is None else None
        fired = Fired(self._database, [self._partition])

        def read(moment: Moment) -> tuple[list[Any], Timestamp]:
            retried = self._quarantine.retried_since(since, moment)
            return [*retried, *fired.since(since, moment, before=before)], moment.time

        return at_one_time(self._database, read)

    def lose_history(self) -> None:
        """Note that the stream no longer reaches back to the checkpoint: the next term scans."""
        checkpoint = self._checkpoints.current()
        noted = checkpoint.scan
        if checkpoint.token is None or (noted is not None and noted.stream_lost):
            return  # the stream begins anew with the next term
        reached = _reached(checkpoint)
        if noted is None:
            due = self._lost(checkpoint, reached)
        elif noted.frontier is None:
            due = noted
        else:
            due = self._gone_back(noted, noted.frontier, reached)
        due = dataclasses.replace(due, stream_first=False, stream_lost=True)
        self._checkpoints.begin_scan(due, epoch=checkpoint.epoch)

    def _lost(self, checkpoint: Checkpoint, reached: datetime | None) -> Scan:
        known = checkpoint.collection
        if known is not None and known != self._rows.collection():
            return self._replaced()
        return Scan(
            since=reached and reached - self._margin,
            published_since=self._published_before(reached),
        )

    def _gone_back(self, noted: Scan, frontier: Frontier, reached: datetime | None) -> Scan:
        """Return a scan that goes on, from so far back that it finds what the stream did not show.

        Rows that were committed late stand that far behind where it was, at most.
        """
        sent = frontier.sent
        if reached is None:
            sent = None
        elif sent is not None:
            oldest = Bound(ObjectId.from_datetime(reached - self._margin))
            sent = sent if oldest.covers(sent.row_id) else oldest
        before = (noted.published_since, self._published_before(reached))
        return dataclasses.replace(
            noted,
            # From there on no lane's mark is enough.
            first=False,
            published_since=min(each for each in before if each is not None),
            frontier=Frontier(at=frontier.at, before=sent, sent=sent),
        )

    def _published_before(self, reached: datetime | None) -> datetime:
        # A row's clock may be ahead of the server's by as much as the margin.
        return BEGINNING if reached is None else reached - 2 * self._margin


def _reached(checkpoint: Checkpoint) -> datetime | None:
    """Return the time up to which the stream was relayed, if that can be told."""
    # Hermes moves the token only, and a mangled token tells nothing.
    marks = [None if checkpoint.token is None else checkpoint.token.cluster_time]
    if checkpoint.scan is None:
        marks.append(checkpoint.cluster_time)
    mark = max((each for each in marks if each is not None), default=None)
    return None if mark is None or not mark.time else datetime.fromtimestamp(mark.time, UTC)


def _will_be_read(row: Row, span: pages.ScanSpan, frontier: Frontier | None) -> bool:
    sent = None if frontier is None else frontier.sent
    return span.covers(row) and (sent is None or not sent.covers(id_of(row)))


def _say(partition: OutboxPartition, noted: Scan) -> None:
    since = f", rows since {noted.since:%Y-%m-%d %H:%M}" if noted.since else ""
    behind = (
        f", behind row {noted.frontier.sent.row_id}"
        if noted.frontier and noted.frontier.sent
        else ""
    )
    logger.info(
        "Outbox partition %r is relayed from the collection first%s%s",
        partition,
        since,
        behind,
        extra={"action": "scan"},
    )
