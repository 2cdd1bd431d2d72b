"""A term: from taking office to its end, one relay's work on one outbox partition.

The term runs in the relay's thread and owns all that it opens. Its mailbox is filled by a reader
with batches, by the client's threads with what is stored and refused (by the term's own with what
the client refuses at once), by each checkpoint's thread with its end, and by whoever calls stop().
It sends what has been read while what was sent is being stored, and checkpoints what is stored. Any
error ends it; the next term begins again from the checkpoint, so that nothing has to be mended in
place.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import time
from typing import TYPE_CHECKING

from postroom import errors, restraints, tracing
from postroom.relay import facts
from postroom.relay.outfit import fit_out
from postroom.relay.reading.batch import Batch
from postroom.relay.reading.joining import Joining
from postroom.relay.reading.lookahead import Lookahead
from postroom.relay.reading.reader import Reader, ReadFailed
from postroom.relay.reading.replay import Replay
from postroom.relay.saving.chunk import Chunk, Landed
from postroom.relay.saving.saver import Saving
from postroom.relay.sending.acknowledgements import Refusal
from postroom.relay.state import State
from postroom.store.clients import operation_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.relay.outfit import Mandate, TermOptions
    from postroom.relay.reading.origin import Origin
    from postroom.relay.standing import Standing
    from postroom.store.checkpoints import Checkpoint

__all__ = ["Term"]

logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
SHARED_ENDS_SECONDS = 300.0


Item = Batch | Landed | Saving | ReadFailed | Refusal | None


class Term:
    """One relay's term of office. Call run() once; stop() from any thread."""

    def __init__(
        self, mandate: Mandate, *, origin: Origin, options: TermOptions, standing: Standing
    ) -> None:
        self._mandate = mandate
        self._origin = origin
        self._options = options
        self._standing = standing
        self._mailbox: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._outfit = fit_out(
            mandate,
            options,
            self._mailbox.put,
            say=lambda reason: standing.enter(standing.state, reason),
        )
        self._replay = Replay()
        self._reader = Reader(tell=self._mailbox.put)
        met = self._outfit.outbound.overtaking.met
        self._joining = Joining(
            Lookahead(self._reader, self._replay, met=met),
            self._reader,
            self._replay,
            is_busy=lambda: self._outfit.landing.flight.batches > 0,
        )

    def run(self, on_idle: Callable[[], None]) -> None:
        """Relay until `stopping` or `paused` is set, then drain; what is being opened is left.

        `on_idle` is called about once a second.

        Raises:
            TermEnded: and any other error; the term is over, whatever it is.

        """
        checkpoint = self._mandate.checkpoints.begin_term()
        self._mandate.experience.intents.forget()
        try:
            self._reader.start(self._open(checkpoint))
            self._outfit.cursors.start()
            self._begun(checkpoint)
            self._relay(on_idle)
        except BaseException as error:
            self._outfit.upkeep.abandon()
            if not isinstance(error, errors.Superseded):
                self._mandate.experience.intents.failed()
            if isinstance(error, errors.HistoryLost):
                self._outfit.saver.wait()
                self._origin.lose_history()
            if not isinstance(error, errors.OpeningLeft):
                raise
        finally:
            self._reader.stop()
            self._outfit.cursors.stop()
            self._outfit.upkeep.close()

    def stop(self) -> None:
        """Wake the term so that it sees `stopping` or `paused` at once."""
        self._mailbox.put(None)

    def _begun(self, checkpoint: Checkpoint) -> None:
        self._mandate.observer.tell(
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
        lanes = self._options.lanes
        checkpoint = self._origin.due(
            checkpoint, look_back=lanes.kept_for if lanes.fenced else None
        )
        self._replay.is_scanning = checkpoint.scan is not None
        self._outfit.saver.marks.begin(checkpoint.lanes)
        self._mandate.experience.intents.forget()
        self._outfit.saver.tenure.renew()
        self._outfit.waiting.begin()
        self._mandate.experience.intents.begin(
            checkpoint,
            self._mandate.checkpoints.note_intents,
            is_awaited=lambda topic: self._outfit.waiting.reason(topic) is not None,
        )
        self._outfit.returning.begin(is_scanning=self._replay.is_scanning)
        self._outfit.outbound.numbering.position = checkpoint.position
        self._outfit.outbound.brake.level = checkpoint.brake_level
        self._outfit.lanes.open(
            checkpoint.lanes, position=checkpoint.position, scan=checkpoint.scan
        )
        # Now that an older holder is out of all lanes: it may have sent until then.
        self._replay.begin(
            operation_time(self._mandate.database),
            has_set_aside=not self._mandate.quarantine.is_empty(),
        )
        return self._origin.open(
            checkpoint,
            left_out_until=self._outfit.lanes.known.until(),
            has_room=lambda: self._reader.has_room,
            gather=self._reader.gather,
        )

    # --- the loop ----------------------------------------------------------------------------

    def _relay(self, on_idle: Callable[[], None]) -> None:
        idled = looked = time.monotonic()
        while not (self._mandate.stopping.is_set() or self._mandate.paused.is_set()):
            self._receive(self._joining.wait_seconds(self._outfit.saver.idle_seconds()))
            # Before new rows take all the room, which they do while the broker is the bottleneck.
            self._return_rows()
            while self._outfit.landing.flight.has_room:
                batch = self._joining.take(self._outfit.lanes.known)
                if batch is None:
                    break
                self._send(batch)
            if self._outfit.landing.flight.is_empty:
                self._reader.all_is_stored()
            self._outfit.saver.save_if_due()
            self._require_progress()
            now = time.monotonic()
            if now - idled > IDLE_SECONDS:
                self._tell_turn()
                on_idle()
                self._outfit.upkeep.look_again()
                self._outfit.upkeep.follow_audience()
                idled = now
            if now - looked > SHARED_ENDS_SECONDS and self._outfit.landing.flight.is_empty:
                self._outfit.upkeep.mark_shared_ends()
                looked = now
        self._standing.enter(State.STOPPING)
        self._drain()

    def _tell_turn(self) -> None:
        oldest = self._outfit.landing.flight.oldest()
        self._mandate.observer.tell(
            facts.LoopTurned(
                partition=self._options.partition,
                reading_seconds=self._reader.waiting_seconds,
                sending_seconds=oldest[1] if oldest else 0.0,
                saving_seconds=self._outfit.saver.waiting_seconds(),
            )
        )

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
                self._outfit.landing.landed(item)
            case Batch():
                self._reader.arrived(item)
            case Saving():
                self._outfit.saver.finished(item)
            case Refusal():
                self._outfit.opening.fail(item)
            case ReadFailed(error=error):
                raise error
            case None:
                pass

    def _require_progress(self) -> None:
        """End the term where the broker does not answer: its client would wait for ever."""
        self._outfit.upkeep.require_sound()
        oldest = self._outfit.landing.flight.oldest()
        if oldest is None:
            return
        chunk, waited = oldest
        if waited > self._options.lanes.send_timeout.total_seconds():
            topics = sorted(chunk.awaiting)
            sentence = f"Pulsar did not store events on {', '.join(topics)} within {waited:.0f} s"
            sentence = restraints.silence(sentence, self._mandate.experience.admin, topics)
            raise errors.TermEnded(f"{sentence}; a new term begins")

    def _drain(self) -> None:
        flight = self._outfit.landing.flight
        deadline = time.monotonic() + self._options.drain_timeout.total_seconds()
        while not flight.is_empty and (left := deadline - time.monotonic()) > 0:
            self._receive(min(left, IDLE_SECONDS))
            self._outfit.upkeep.require_sound()
        if not flight.is_empty:
            logger.warning(
                "%d events were not stored in time; the next term sends what the topics lack",
                flight.events,
                extra={"action": "drain"},
            )
            self._mandate.experience.intents.failed()
        self._outfit.saver.save_all()

    # --- sending -----------------------------------------------------------------------------

    def _send(self, batch: Batch) -> None:
        self._outfit.saver.tenure.require()
        if self._replay.is_scanning and batch.point is not None and batch.point.scan is None:
            self._replay.is_scanning = False
            self._outfit.saver.hurry()
            self._outfit.lanes.scan_is_over()
            self._outfit.returning.scan_is_over()
        chunk = Chunk(point=batch.point, committed_at=batch.committed_at)
        chunk.parents = [] if tracing.is_on() else None
        chunk.is_replay = self._replay.is_worth_noting
        chunk.is_scan = self._replay.is_scanning
        if self._options.mark_sent or chunk.is_replay:
            chunk.row_ids = []
        try:
            self._outfit.outbound.fill(chunk, batch)
        except (errors.Blocked, errors.RoutingFailed):
            # What stands before the row that blocks is sent all the same. There is no point in
            # the middle of a batch: the next term leaves it out by the tail.
            chunk.point = None
            self._seal(chunk)
            self._drain()
            raise
        if chunk.point is not None and self._outfit.lanes.has_late_tails:
            # What a topic had may stand before or behind this: its mark stays.
            chunk.point = dataclasses.replace(chunk.point, covers_tails=False)
        self._seal(chunk)
        if not self._replay.is_scanning and self._replay.ends_with(batch.point):
            self._outfit.lanes.replay_is_over()
        if batch.ends_with:
            self._drain()
            raise errors.TermEnded(batch.ends_with)

    def _return_rows(self) -> None:
        """Send what was set aside for topics that can be opened again.

        Not while stream or scan may still show a row as it came, or one that was sent in its place
        is under way: that row would be sent twice.
        """
        outfit, replay = self._outfit, self._replay
        if replay.is_scanning:
            is_sure = outfit.returning.may_in_scan
        else:
            is_sure = replay.is_over and not outfit.landing.flight.has_replay
        if outfit.waiting and is_sure and outfit.landing.flight.has_room:
            chunk = self._outfit.returning.next()
            if chunk is not None:
                self._outfit.saver.tenure.require()
                self._seal(chunk)

    def _seal(self, chunk: Chunk) -> None:
        self._outfit.outbound.seal(chunk, self._mailbox.put)
        self._outfit.landing.sent(chunk)
