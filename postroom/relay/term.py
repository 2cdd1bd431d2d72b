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
from typing import TYPE_CHECKING, Any

from postroom import errors
from postroom.relay import facts
from postroom.relay.acknowledgements import Refusal
from postroom.relay.batch import Batch
from postroom.relay.brake import Brake
from postroom.relay.chunk import Chunk, Landed
from postroom.relay.landing import Landing
from postroom.relay.lanes import Lanes
from postroom.relay.opening import Opening
from postroom.relay.outbound import Outbound
from postroom.relay.reader import Reader, ReadFailed
from postroom.relay.replay import Replay
from postroom.relay.returning import Returning
from postroom.relay.saver import Pace, Saver, Saving
from postroom.relay.state import State
from postroom.relay.tenure import Tenure
from postroom.relay.waiting import Waiting
from postroom.store.clients import operation_time
from postroom.store.outbox_rows import OutboxRows

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    import pulsar
    from pymongo.database import Database

    from postroom.observation import Observer
    from postroom.relay.experience import Experience
    from postroom.relay.lane_options import LaneOptions
    from postroom.relay.origin import Origin
    from postroom.relay.standing import Standing
    from postroom.routing import Routing
    from postroom.store.checkpoints import Checkpoint, CheckpointStore
    from postroom.store.quarantine import Quarantine
    from postroom.store.values import OutboxPartition

__all__ = ["Term", "TermOptions"]

logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
SHARED_ENDS_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TermOptions:
    """The settings that a term obeys."""

    partition: OutboxPartition
    pace: Pace
    drain_timeout: timedelta
    block_on_poison: bool
    poison_limit: int
    mark_sent: bool
    lanes: LaneOptions


Item = Batch | Landed | Saving | ReadFailed | Refusal | None


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
        experience: Experience,
        options: TermOptions,
        observer: Observer,
        standing: Standing,
        stopping: threading.Event,
    ) -> None:
        self._database = database
        outbox = OutboxRows(database, partition=options.partition)
        self._origin = origin
        self._checkpoints = checkpoints
        self._quarantine = quarantine
        self._options = options
        self._observer = observer
        self._standing = standing
        self._stopping = stopping
        self._mailbox: queue.SimpleQueue[Item] = queue.SimpleQueue()
        tenure = Tenure(checkpoints)
        self._saver = Saver(
            checkpoints,
            pace=options.pace,
            tenure=tenure,
            tell=self._mailbox.put,
            written=self._tell_written,
        )
        self._opening = Opening(
            client,
            options=options.lanes,
            routing=routing,
            experience=experience,
            tenure=tenure,
            tell=self._mailbox.put,
            stopping=stopping,
        )
        waiting = self._waiting = Waiting(quarantine)
        self._lanes = Lanes(self._opening, routing=routing, saver=self._saver, waiting=waiting)
        self._outbound = Outbound(
            self._lanes,
            waiting=waiting,
            outbox=outbox,
            routing=routing,
            max_message_bytes=experience.largest,
            block_on_poison=options.block_on_poison,
            brake=Brake(limit=options.poison_limit),
        )
        self._returning = Returning(
            waiting=waiting,
            lanes=self._lanes,
            quarantine=quarantine,
            outbox=outbox,
            routing=routing,
            experience=experience,
        )
        self._landing = Landing(
            partition=options.partition,
            quarantine=quarantine,
            waiting=waiting,
            returning=self._returning,
            outbox=outbox,
            saver=self._saver,
            observer=observer,
            mark_sent=options.mark_sent,
        )
        self._scanning = False
        self._replay = Replay()
        self._reader = Reader(tell=self._mailbox.put)
        self._unsent: deque[Batch] = deque()

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
            self._lanes.abandon()
            self._saver.wait()
            self._origin.lose_history()
            raise
        except BaseException:
            self._lanes.abandon()
            raise
        finally:
            self._reader.stop()
            self._lanes.close()

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
        self._saver.marks.begin(checkpoint.lanes)
        self._saver.tenure.renew()
        self._waiting.begin()
        self._outbound.numbering.position = checkpoint.position
        self._outbound.brake.level = checkpoint.brake_level
        self._lanes.open(
            checkpoint.lanes,
            position=checkpoint.position,
            published_since=checkpoint.scan.published_since if checkpoint.scan else None,
        )
        # Now that an older holder is out of all lanes: it may have sent until then.
        self._replay.begin(
            operation_time(self._database), has_set_aside=not self._quarantine.is_empty()
        )
        return self._origin.open(checkpoint)

    # --- the loop ----------------------------------------------------------------------------

    def _relay(self, on_idle: Callable[[], None]) -> None:
        idled = looked = time.monotonic()
        while not self._stopping.is_set():
            self._receive(self._saver.patience())
            while self._unsent and self._landing.flight.has_room:
                self._send(self._unsent.popleft())
                self._reader.taken()
            self._return_rows()
            self._saver.save_if_due()
            self._require_progress()
            now = time.monotonic()
            if now - idled > IDLE_SECONDS:
                on_idle()
                self._lanes.look_again()
                idled = now
            if now - looked > SHARED_ENDS_SECONDS and self._landing.flight.is_empty:
                self._lanes.mark_shared_ends()
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
            case Landed():
                self._landing.landed(item)
            case Batch():
                self._unsent.append(item)
            case Saving():
                self._saver.finished(item)
            case Refusal():
                self._opening.fail(item)
            case ReadFailed(error=error):
                raise error
            case None:
                pass

    def _require_progress(self) -> None:
        """End the term where the broker does not answer: its client would wait for ever."""
        self._lanes.require_sound()
        oldest = self._landing.flight.oldest()
        if oldest is None:
            return
        chunk, waited = oldest
        if waited > self._options.lanes.send_timeout.total_seconds():
            raise errors.TermEnded(
                f"Pulsar did not store events on {', '.join(sorted(chunk.awaiting))} within "
                f"{waited:.0f} s; a new term begins"
            )

    def _drain(self) -> None:
        deadline = time.monotonic() + self._options.drain_timeout.total_seconds()
        while not self._landing.flight.is_empty and (left := deadline - time.monotonic()) > 0:
            self._receive(min(left, IDLE_SECONDS))
            self._lanes.require_sound()
        if not self._landing.flight.is_empty:
            logger.warning(
                "%d events were not stored in time; the next term sends what the topics lack",
                self._landing.flight.events,
                extra={"action": "drain"},
            )
        self._saver.save_all()

    # --- sending -----------------------------------------------------------------------------

    def _send(self, batch: Batch) -> None:
        self._saver.tenure.require()
        if batch.point is not None and self._scanning:
            logger.info("The collection is relayed; the change stream goes on from there")
            self._scanning = False
            self._lanes.scan_is_over()
        chunk = Chunk(point=batch.point)
        chunk.is_replay = self._replay.is_worth_noting
        if self._options.mark_sent or chunk.is_replay:
            chunk.row_ids = []
        try:
            self._outbound.fill(chunk, batch)
        except (errors.Blocked, errors.RoutingFailed):
            # What stands before the row that blocks is sent all the same. There is no point in
            # the middle of a batch: the next term leaves it out by the tail.
            chunk.point = None
            self._seal(chunk)
            self._drain()
            raise
        self._seal(chunk)
        if not self._scanning and self._replay.ends_with(batch.point):
            self._lanes.replay_is_over()

    def _return_rows(self) -> None:
        """Send what was set aside for topics that can be opened again.

        Not while the stream may still show a row as it came: that row would be sent twice.
        """
        if self._waiting and self._replay.is_over and self._landing.flight.has_room:
            chunk = self._returning.next()
            if chunk is not None:
                self._saver.tenure.require()
                self._seal(chunk)

    def _seal(self, chunk: Chunk) -> None:
        self._outbound.seal(chunk, self._mailbox.put)
        self._landing.sent(chunk)

    # --- storing -----------------------------------------------------------------------------

    def _tell_written(self, saving: Saving) -> None:
        self._observer.tell(
            facts.CheckpointWritten(
                partition=self._options.partition,
                position=saving.position,
                cluster_time=saving.cluster_time,
                seconds=saving.ended - saving.began,
            )
        )
