"""A term: from taking office to its end, one relay's work on one partition.

The term runs in the relay's thread and owns all that it opens. A reader thread fills its mailbox
with batches, the Pulsar client's threads with acknowledgements. It sends what has been read while
what was sent is being stored, and checkpoints what is stored. Any error ends it; the next term
begins again from the checkpoint, so that nothing has to be mended in place.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from postroom import errors
from postroom.relay import facts
from postroom.relay.batch import Batch
from postroom.relay.chunk import Ack, Chunk
from postroom.relay.outbound import Outbound
from postroom.relay.reader import Reader, ReadFailed
from postroom.relay.saver import Saver, Saving
from postroom.relay.state import State
from postroom.store.outbox_rows import OutboxRows
from postroom.store.values import Mark

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    import pulsar
    from pymongo.database import Database

    from postroom.observation import Observer
    from postroom.relay.lane import LaneOptions
    from postroom.relay.origin import Origin
    from postroom.relay.standing import Standing
    from postroom.routing import Routing
    from postroom.store.checkpoints import Checkpoint, CheckpointStore
    from postroom.store.quarantine import Quarantine
    from postroom.store.values import OutboxPartition

__all__ = ["Term", "TermOptions"]

logger = logging.getLogger(__name__)

# What may be sent and not yet stored. Enough to keep the broker busy while the next batch is read.
IN_FLIGHT_EVENTS = 10_000
IN_FLIGHT_BYTES = 16 << 20
IDLE_SECONDS = 1.0
SHARED_ENDS_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TermOptions:
    """The settings that a term obeys."""

    partition: OutboxPartition
    checkpoint_interval: timedelta
    idle_checkpoint_interval: timedelta
    drain_timeout: timedelta
    max_message_bytes: int
    block_on_poison: bool
    mark_sent: bool
    lanes: LaneOptions


class _Refused(NamedTuple):
    topic: str
    result: Any
    size: int


Item = Batch | Ack | Saving | ReadFailed | _Refused | None


class Term:
    """One relay's term of office. Call run() once; stop() from any thread."""

    def __init__(
        self,
        *,
        database: Database[Any],
        origin: Origin,
        client: pulsar.Client,
        checkpoints: CheckpointStore,
        quarantine: Quarantine,
        routing: Routing,
        options: TermOptions,
        observer: Observer,
        standing: Standing,
        stopping: threading.Event,
    ) -> None:
        self._outbox = OutboxRows(database, partition=options.partition)
        self._origin = origin
        self._checkpoints = checkpoints
        self._quarantine = quarantine
        self._options = options
        self._observer = observer
        self._standing = standing
        self._stopping = stopping
        self._mailbox: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._saver = Saver(
            checkpoints,
            interval=options.checkpoint_interval,
            idle_interval=options.idle_checkpoint_interval,
            observer=observer,
            partition=options.partition,
            tell=self._mailbox.put,
        )
        self._outbound = Outbound(
            client,
            outbox=self._outbox,
            routing=routing,
            saver=self._saver,
            lanes=options.lanes,
            max_message_bytes=options.max_message_bytes,
            block_on_poison=options.block_on_poison,
            refused=self._refused,
            stopping=stopping,
        )
        self._scanning = False
        self._reader = Reader(tell=self._mailbox.put)
        self._unsent: deque[Batch] = deque()
        self._sent: deque[Chunk] = deque()
        self._events_in_flight = 0
        self._bytes_in_flight = 0

    def run(self, on_idle: Callable[[], None]) -> None:
        """Relay until `stopping` is set, then drain; `on_idle` is called about once a second.

        Raises:
            TermEnded: and any other error; the term is over, whatever it is.

        """
        checkpoint = self._checkpoints.begin_term()
        try:
            self._reader.start(self._open(checkpoint))
            self._begun(checkpoint)
            self._relay(on_idle)
        except errors.HistoryLost:
            self._saver.wait()
            self._origin.lose_history()
            raise
        finally:
            self._reader.stop()
            self._outbound.close()

    def stop(self) -> None:
        """Wake the term so that it sees `stopping` at once."""
        self._mailbox.put(None)

    def _begun(self, checkpoint: Checkpoint) -> None:
        self._observer.tell(
            facts.TermBegan(
                partition=self._options.partition,
                epoch=checkpoint.epoch,
                position=checkpoint.position,
                cluster_time=checkpoint.cluster_time,
            )
        )
        self._standing.enter(State.RELAYING)
        logger.info(
            "Relaying partition %r from position %d on, epoch %d",
            self._options.partition,
            checkpoint.position,
            checkpoint.epoch,
            extra={"action": "term_began", "epoch": checkpoint.epoch},
        )

    # --- opening -----------------------------------------------------------------------------

    def _open(self, checkpoint: Checkpoint) -> Iterator[Batch]:
        self._scanning = checkpoint.scan is not None or checkpoint.token is None
        self._saver.begin(checkpoint.lanes)
        self._outbound.open(
            checkpoint.lanes,
            position=checkpoint.position,
            published_since=checkpoint.scan.published_since if checkpoint.scan else None,
        )
        return self._origin.open(checkpoint)

    # --- the loop ----------------------------------------------------------------------------

    def _relay(self, on_idle: Callable[[], None]) -> None:
        idled = looked = time.monotonic()
        while not self._stopping.is_set():
            self._receive(self._saver.patience())
            while self._unsent and self._has_room():
                self._send(self._unsent.popleft())
                self._reader.taken()
            self._saver.save_if_due()
            now = time.monotonic()
            if now - idled > IDLE_SECONDS:
                on_idle()
                idled = now
            if now - looked > SHARED_ENDS_SECONDS and not self._sent:
                self._outbound.mark_shared_ends()
                looked = now
        self._standing.enter(State.STOPPING)
        self._drain()

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
            case Ack():
                self._settle(item)
            case Batch():
                self._unsent.append(item)
            case Saving():
                self._saver.finished(item)
            case _Refused():
                self._end_with(item)
            case ReadFailed(error=error):
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
        self._saver.save_all()

    # --- sending -----------------------------------------------------------------------------

    def _send(self, batch: Batch) -> None:
        self._saver.require_trust()
        if batch.point is not None and self._scanning:
            logger.info("The collection is relayed; the change stream goes on from there")
            self._scanning = False
            self._outbound.scan_is_over()
        chunk = Chunk(point=batch.point)
        if self._options.mark_sent:
            chunk.row_ids = []
        try:
            self._outbound.fill(chunk, batch)
        except errors.Blocked:
            # What stands before the row that blocks is sent all the same. There is no point in
            # the middle of a batch: the next term leaves it out by the tail.
            chunk.point = None
            self._seal(chunk)
            self._drain()
            raise
        self._seal(chunk)

    def _seal(self, chunk: Chunk) -> None:
        self._outbound.seal(chunk, self._mailbox.put)
        self._sent.append(chunk)
        self._events_in_flight += chunk.sent
        self._bytes_in_flight += chunk.payload_bytes
        self._collect()

    # --- storing -----------------------------------------------------------------------------

    def _refused(self, topic: str, result: Any, size: int) -> None:
        # In a thread of the client.
        self._mailbox.put(_Refused(topic, result, size))

    def _end_with(self, refused: _Refused) -> NoReturn:
        import pulsar

        if refused.size and refused.result == pulsar.Result.MessageTooBig:
            raise errors.TooLarge(
                f"The broker refused an event of {refused.size} bytes on {refused.topic}, fewer "
                "than POSTROOM_MAX_MESSAGE_BYTES allows; from the next term on such events are "
                "poison",
                size=refused.size,
            )
        self._not_stored(refused.topic, refused.result)

    def _settle(self, ack: Ack) -> None:
        import pulsar

        if ack.result == pulsar.Result.Ok:
            ack.chunk.awaiting -= 1
            # A resend that deduplication has dropped is acknowledged without a place.
            if ack.message_id.ledger_id() >= 0:
                ack.chunk.marks[ack.topic] = Mark(ack.message_id.serialize())
            self._collect()
        else:
            self._not_stored(ack.topic, ack.result)

    def _not_stored(self, topic: str, result: Any) -> NoReturn:
        import pulsar

        if result == pulsar.Result.ProducerFenced:
            self._checkpoints.confirm()
            raise errors.TermEnded(
                f"Another producer has fenced {topic}, and it is no newer relay of partition "
                f"{self._options.partition!r}: is a relay of another partition or service sending "
                "there? A topic has one, unless it is declared shared; a new term begins"
            )
        raise errors.TermEnded(
            f"Pulsar did not store events on {topic} ({result}); a new term begins"
        )

    def _collect(self) -> None:
        while self._sent and not self._sent[0].awaiting:
            chunk = self._sent.popleft()
            self._events_in_flight -= chunk.sent
            self._bytes_in_flight -= chunk.payload_bytes
            if chunk.poison:
                self._quarantine.store(chunk.poison)
            if chunk.row_ids:
                self._mark_sent(chunk)
            self._saver.stored(chunk)
            self._tell_stored(chunk)

    def _tell_stored(self, chunk: Chunk) -> None:
        partition = self._options.partition
        if chunk.poison:
            self._observer.tell(
                facts.RowsQuarantined(
                    partition=partition, rows=len(chunk.poison), reason=chunk.poison[0].reason
                )
            )
        self._observer.tell(
            facts.ChunkStored(
                partition=partition,
                events=chunk.sent,
                payload_bytes=chunk.payload_bytes,
                skipped=chunk.skipped,
                position=chunk.position,
                cluster_time=None if chunk.point is None else chunk.point.cluster_time,
                seconds=time.monotonic() - chunk.began,
            )
        )

    def _mark_sent(self, chunk: Chunk) -> None:
        poison = {each.row_id for each in chunk.poison}
        self._outbox.mark_sent([row_id for row_id in chunk.row_ids or () if row_id not in poison])
