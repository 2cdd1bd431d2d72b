"""A term: from taking office to its end, one relay's work on one partition.

The term runs in the relay's thread and owns all that it opens. A reader thread fills its mailbox
with batches, the Pulsar client's threads with acknowledgements. It sends what has been read while
what was sent is being stored, and checkpoints what is stored. Any error ends it; the next term
begins again from the checkpoint, so that nothing has to be mended in place.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from postroom import errors, wire
from postroom.relay import letter, source
from postroom.relay.checkpoint import Checkpoint, CheckpointStore, Scan
from postroom.relay.chunk import Chunk
from postroom.relay.lane import Lane, LaneOptions
from postroom.relay.quarantine import Quarantine, Quarantined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pulsar
    from bson import Timestamp
    from pymongo.database import Database

    from postroom.relay.routing import Routing
    from postroom.relay.status import Status

__all__ = ["Term", "TermOptions"]

logger = logging.getLogger(__name__)

# What may be sent and not yet stored. Enough to keep the broker busy while the next batch is read.
IN_FLIGHT_EVENTS = 10_000
IN_FLIGHT_BYTES = 16 << 20
READ_AHEAD_BATCHES = 3
# A relay that has not heard of its own term for this long asks before it sends: it may have been
# frozen, and the broker takes five seconds to give its mutex away.
TRUST_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TermOptions:
    """The settings that a term obeys."""

    partition: str
    checkpoint_interval: timedelta
    idle_checkpoint_interval: timedelta
    drain_timeout: timedelta
    history_margin: timedelta
    max_message_bytes: int
    block_on_poison: bool
    mark_sent: bool
    lanes: LaneOptions


class _Ack(NamedTuple):
    chunk: Chunk
    topic: str
    result: Any
    message_id: Any


class _ReadFailed(NamedTuple):
    error: BaseException


class _Saving(NamedTuple):
    """A checkpoint that is being written, in a thread of its own."""

    future: Future[None]
    marks: dict[str, bytes]
    cluster_time: Timestamp | None
    began: float


Item = source.Batch | _Ack | _ReadFailed | _Saving | None


class Term:
    """One relay's term of office. Call run() once; stop() from any thread."""

    def __init__(
        self,
        *,
        database: Database[Any],
        client: pulsar.Client,
        checkpoints: CheckpointStore,
        quarantine: Quarantine,
        routing: Routing,
        options: TermOptions,
        status: Status,
        stopping: threading.Event,
    ) -> None:
        self._database = database
        self._outbox = database[wire.OUTBOX]
        self._client = client
        self._checkpoints = checkpoints
        self._quarantine = quarantine
        self._routing = routing
        self._options = options
        self._status = status
        self._stopping = stopping
        self._mailbox: queue.SimpleQueue[Item] = queue.SimpleQueue()
        # A checkpoint waits for the journal; sending does not wait for that.
        self._saver = ThreadPoolExecutor(1, thread_name_prefix="relay-checkpoint")
        self._saving: _Saving | None = None
        self._places = threading.Semaphore(READ_AHEAD_BATCHES)
        self._over = threading.Event()
        self._unsent: deque[source.Batch] = deque()
        self._sent: deque[Chunk] = deque()
        self._stored: Chunk | None = None
        self._lanes: dict[str, Lane] = {}
        # What the checkpoint says of each lane, and what its next save will add to that. They are
        # kept apart: a mark ahead of the token would hide from the next term what it must skip.
        self._marks: dict[str, bytes | None] = {}
        self._new_marks: dict[str, bytes] = {}
        self._position = 0
        self._events_in_flight = 0
        self._bytes_in_flight = 0
        self._confirmed = 0.0
        self._saved = 0.0
        self._scan: Scan | None = None
        self._scanned_id: Any = None

    def run(self, on_idle: Callable[[], None]) -> None:
        """Relay until `stopping` is set, then drain; `on_idle` is called about once a second.

        Raises:
            TermEnded: and any other error; the term is over, whatever it is.

        """
        checkpoint = self._checkpoints.begin_term()
        self._renew_trust()
        try:
            batches = self._open(checkpoint)
            threading.Thread(
                target=self._read, args=(batches,), name="relay-reader", daemon=True
            ).start()
            self._status.relaying(checkpoint.epoch, checkpoint.cluster_time)
            logger.info(
                "Relaying partition %r from position %d on, epoch %d",
                self._options.partition,
                checkpoint.position,
                checkpoint.epoch,
                extra={"action": "term_began", "epoch": checkpoint.epoch},
            )
            self._relay(on_idle)
        except errors.HistoryLost:
            self._await_saving()
            self._lose_history(checkpoint)
            raise
        finally:
            self._over.set()
            self._saver.shutdown(wait=False, cancel_futures=True)
            for lane in self._lanes.values():
                lane.close()

    def stop(self) -> None:
        """Wake the term so that it sees `stopping` at once."""
        self._mailbox.put(None)

    # --- opening -----------------------------------------------------------------------------

    def _open(self, checkpoint: Checkpoint) -> Iterator[source.Batch]:
        self._position = checkpoint.position
        self._marks = dict(checkpoint.lanes)
        self._scan = checkpoint.scan
        # All known topics are fenced before the first send, so that an older holder is out of all
        # of them; the others when the first event goes there.
        for topic in checkpoint.lanes:
            self._open_lane(topic)
        if self._scan is None and checkpoint.token is not None:
            return self._stream(checkpoint.token)
        return self._from_collection(checkpoint)

    def _stream(self, token: Mapping[str, Any]) -> Iterator[source.Batch]:
        return source.stream(self._outbox, partition=self._options.partition, token=token)

    def _from_collection(self, checkpoint: Checkpoint) -> Iterator[source.Batch]:
        at = source.snapshot_time(self._database)
        partition = self._options.partition
        token = source.open_stream(self._outbox, partition=partition, after=at)
        if self._scan is None:
            self._scan = Scan()
            self._checkpoints.begin_scan(self._scan, token=token)
        logger.info(
            "Partition %r is relayed from the collection first%s",
            partition,
            f", rows since {self._scan.since:%Y-%m-%d %H:%M}" if self._scan.since else "",
            extra={"action": "scan", "epoch": checkpoint.epoch},
        )
        return self._scan_then_stream(at, token)

    def _scan_then_stream(self, at: Timestamp, token: Mapping[str, Any]) -> Iterator[source.Batch]:
        since = self._scan.since if self._scan else None
        yield from source.scan(
            self._database, partition=self._options.partition, at=at, since=since
        )
        # The first batch with a token ends the scan, in the checkpoint too.
        yield source.Batch(rows=(), token=token)
        yield from self._stream(token)

    def _lose_history(self, checkpoint: Checkpoint) -> None:
        if checkpoint.scan is not None or checkpoint.token is None:
            return  # the collection is to be scanned anyway
        margin = self._options.history_margin
        mark = checkpoint.cluster_time or source.time_of(checkpoint.token)
        reached = datetime.fromtimestamp(mark.time, UTC) if mark else None
        beginning = datetime.fromtimestamp(1, UTC)
        self._checkpoints.begin_scan(
            Scan(
                since=reached and reached - margin,
                # A row's clock may be ahead of the server's by as much as the margin.
                published_since=reached - 2 * margin if reached else beginning,
            )
        )

    def _open_lane(self, topic: str) -> Lane:
        lane = Lane(self._client, topic, options=self._options.lanes)
        self._lanes[topic] = lane
        declared = topic in self._marks
        self._marks[topic] = lane.open(
            since=self._marks.get(topic),
            declared=declared,
            published_since=self._scan.published_since if self._scan else None,
            keyed=self._routing.keyed,
            shared=self._routing.is_shared(topic),
        )
        if not declared:
            # Before the first send: should this term die, the next one knows where to look. A save
            # that is under way does not know of this lane yet, and must not write after it.
            self._await_saving()
            self._checkpoints.declare_lanes(self._marks)
        self._renew_trust()
        if lane.tail:
            logger.info(
                "%d events after the checkpoint are on %s already and are left out",
                len(lane.tail),
                topic,
                extra={"action": "tail"},
            )
        return lane

    # --- reading, in a thread of its own -----------------------------------------------------

    def _read(self, batches: Iterator[source.Batch]) -> None:
        try:
            for batch in batches:
                while not self._places.acquire(timeout=1.0):
                    if self._over.is_set():
                        return
                if self._over.is_set():
                    return
                self._mailbox.put(batch)
        except BaseException as error:  # noqa: BLE001 - the term ends with it, in its own thread
            self._mailbox.put(_ReadFailed(error))
        else:
            ended = errors.TermEnded("The change stream ended; a new term begins")
            self._mailbox.put(_ReadFailed(ended))

    # --- the loop ----------------------------------------------------------------------------

    def _relay(self, on_idle: Callable[[], None]) -> None:
        idled = time.monotonic()
        while not self._stopping.is_set():
            self._receive(self._patience())
            while self._unsent and self._has_room():
                self._send(self._unsent.popleft())
                self._places.release()
            self._checkpoint_if_due()
            if time.monotonic() - idled > 1.0:
                on_idle()
                idled = time.monotonic()
        self._drain()

    def _patience(self) -> float:
        if self._stored is None or not self._stored.has_events or self._saving is not None:
            return 1.0
        due = self._saved + self._options.checkpoint_interval.total_seconds()
        return max(0.0, min(1.0, due - time.monotonic()))

    def _receive(self, timeout: float) -> None:
        try:
            item = self._mailbox.get(timeout=timeout)
            while True:
                self._accept(item)
                item = self._mailbox.get_nowait()
        except queue.Empty:
            return

    def _accept(self, item: Item) -> None:
        match item:
            case _Saving():
                self._saved_as(item)
            case _Ack():
                self._settle(item)
            case source.Batch():
                self._unsent.append(item)
            case _ReadFailed(error=error):
                raise error
            case None:
                pass

    def _has_room(self) -> bool:
        return self._events_in_flight < IN_FLIGHT_EVENTS and self._bytes_in_flight < IN_FLIGHT_BYTES

    def _drain(self) -> None:
        deadline = time.monotonic() + self._options.drain_timeout.total_seconds()
        while self._sent and (left := deadline - time.monotonic()) > 0:
            self._receive(left)
        if self._sent:
            logger.warning(
                "%d events were not stored in time; the next term sends what the topics lack",
                self._events_in_flight,
                extra={"action": "drain"},
            )
        self._await_saving()
        self._save()
        self._await_saving()

    # --- sending -----------------------------------------------------------------------------

    def _send(self, batch: source.Batch) -> None:
        if time.monotonic() - self._confirmed > TRUST_SECONDS:
            self._checkpoints.confirm()
            self._renew_trust()
        if batch.token is not None and self._scan is not None:
            logger.info("The collection is relayed; the change stream goes on from there")
            self._scan = None
        chunk = Chunk(token=batch.token, cluster_time=batch.cluster_time, position=self._position)
        touched: set[Lane] = set()
        try:
            self._send_rows(batch.rows, chunk, touched)
        except errors.Blocked:
            # What stands before the row that blocks is sent all the same. There is no token for
            # the middle of a batch: the next term leaves it out by the tail.
            chunk.token = None
            self._seal(chunk, touched)
            self._drain()
            raise
        self._seal(chunk, touched)

    def _seal(self, chunk: Chunk, touched: set[Lane]) -> None:
        # A lane whose letters were all there already has nothing to tell.
        touched = {lane for lane in touched if lane.has_ready}
        chunk.position, chunk.awaiting = self._position, len(touched)
        self._sent.append(chunk)
        self._events_in_flight += chunk.sent
        self._bytes_in_flight += chunk.payload_bytes
        for lane in touched:
            lane.seal(self._tell(chunk, lane.topic))
        self._collect()

    def _send_rows(self, rows: Sequence[source.Row], chunk: Chunk, touched: set[Lane]) -> None:
        # The relay's hot loop: what it does for each event is a tenth of what the relay can do.
        lanes, routing, limit = self._lanes, self._routing, self._options.max_message_bytes
        write = letter.write
        position, sent, payload_bytes = self._position, 0, 0
        lane: Lane | None = None
        try:
            for row in rows:
                position += 1
                try:
                    ready = write(row, routing, limit)
                except errors.Poison as poison:
                    self._reject(row, position, poison, chunk)
                    continue
                if lane is None or ready.topic is not lane.topic:
                    lane = lanes.get(ready.topic) or self._open_lane(ready.topic)
                    touched.add(lane)
                if lane.tail and ready.id in lane.tail:
                    lane.tail.discard(ready.id)
                    continue
                if position <= lane.floor:
                    position = self._renumbered(lane, position)
                lane.send(ready, position)
                sent += 1
                payload_bytes += len(ready.payload)
        finally:
            chunk.sent, chunk.payload_bytes = sent, payload_bytes
        self._finish(rows, position, chunk)

    def _finish(self, rows: Sequence[source.Row], position: int, chunk: Chunk) -> None:
        self._position = position
        self._status.skipped += len(rows) - chunk.sent - len(chunk.poison)
        if rows:
            chunk.last_id = source.id_of(rows[-1])
            if self._options.mark_sent:
                chunk.row_ids = [source.id_of(row) for row in rows]

    def _renumbered(self, lane: Lane, position: int) -> int:
        # Another program moved the checkpoint since (Hermes does), or the collection was scanned.
        # A number at or below the floor would be dropped by the broker's deduplication.
        logger.info(
            "Numbering goes on at %d on %s, not at %d: others moved the checkpoint meanwhile",
            lane.floor + 1,
            lane.topic,
            position,
            extra={"action": "renumber"},
        )
        return lane.floor + 1

    def _reject(self, row: source.Row, position: int, poison: errors.Poison, chunk: Chunk) -> None:
        row_id = source.id_of(row)
        if self._options.block_on_poison:
            raise errors.Blocked(
                f"Row {row_id} can never be sent: {poison}. POSTROOM_ON_POISON=block: the relay "
                "stops here and looks again; remove or mend the row, or choose quarantine"
            ) from poison
        logger.error(
            "Row %s can never be sent and goes into quarantine: %s",
            row_id,
            poison,
            extra={"action": "quarantine", "event_id": str(row_id)},
        )
        chunk.poison.append(Quarantined(row_id=row_id, position=position, reason=str(poison)))

    # --- storing -----------------------------------------------------------------------------

    def _tell(self, chunk: Chunk, topic: str) -> Any:
        mailbox = self._mailbox

        def stored(result: Any, message_id: Any) -> None:
            mailbox.put(_Ack(chunk, topic, result, message_id))

        return stored

    def _settle(self, ack: _Ack) -> None:
        import pulsar

        if ack.result == pulsar.Result.Ok:
            ack.chunk.awaiting -= 1
            ack.chunk.marks[ack.topic] = ack.message_id.serialize()
            self._collect()
        elif ack.result == pulsar.Result.ProducerFenced:
            raise errors.Superseded(f"A newer relay has fenced {ack.topic}; this one stands by")
        else:
            raise errors.TermEnded(
                f"Pulsar did not store events on {ack.topic} ({ack.result}); a new term begins"
            )

    def _collect(self) -> None:
        while self._sent and not self._sent[0].awaiting:
            chunk = self._sent.popleft()
            self._events_in_flight -= chunk.sent
            self._bytes_in_flight -= chunk.payload_bytes
            self._status.stored(chunk.sent, chunk.position, chunk.cluster_time)
            self._after(chunk)

    def _after(self, chunk: Chunk) -> None:
        if chunk.poison:
            self._quarantine.store(chunk.poison)
            self._status.quarantined += len(chunk.poison)
        if chunk.row_ids:
            self._mark_sent(chunk.row_ids)
        self._new_marks.update(chunk.marks)
        if chunk.token is None:
            # Nothing can go on from the middle of a scan; its end says which row was the last.
            self._scanned_id = chunk.last_id
            return
        if not chunk.has_events:
            chunk.last_id = self._scanned_id if self._stored is None else self._stored.last_id
        self._scanned_id = None
        self._stored = chunk

    def _mark_sent(self, row_ids: list[Any]) -> None:
        self._outbox.update_many({"_id": {"$in": row_ids}}, {"$set": {"sentAt": datetime.now(UTC)}})

    # --- checkpointing -----------------------------------------------------------------------

    def _checkpoint_if_due(self) -> None:
        if self._stored is None or self._saving is not None:
            return
        interval = (
            self._options.checkpoint_interval
            if self._stored.has_events
            else self._options.idle_checkpoint_interval
        )
        if time.monotonic() - self._saved >= interval.total_seconds():
            self._save()

    def _save(self) -> None:
        stored = self._stored
        if stored is None or stored.token is None:
            return
        marks, self._new_marks = self._new_marks, {}
        began = time.monotonic()
        future = self._saver.submit(
            self._checkpoints.save,
            token=stored.token,
            position=stored.position,
            last_id=stored.last_id,
            cluster_time=stored.cluster_time,
            lanes={**self._marks, **marks},
        )
        saving = self._saving = _Saving(future, marks, stored.cluster_time, began)
        future.add_done_callback(lambda _: self._mailbox.put(saving))
        self._stored = None
        self._saved = began

    def _await_saving(self) -> None:
        if self._saving is not None:
            self._saved_as(self._saving)

    def _saved_as(self, saving: _Saving) -> None:
        if saving is not self._saving:
            return  # it was waited for already
        saving.future.result()
        self._saving = None
        self._marks.update(saving.marks)
        self._status.checkpointed(saving.cluster_time)
        # What the server said is as old as the question.
        self._confirmed = saving.began

    def _renew_trust(self) -> None:
        self._confirmed = time.monotonic()
