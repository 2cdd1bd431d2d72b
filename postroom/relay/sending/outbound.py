"""Outbound: puts rows on their lanes, each once, under the number that is theirs."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from postroom import errors
from postroom.events import id_text
from postroom.relay.saving.chunk import Landed
from postroom.relay.sending.numbering import Numbering
from postroom.relay.sending.overtaking import OutOfTurnError, Overtaking
from postroom.store import letter
from postroom.store.codec import id_of
from postroom.store.quarantine import Quarantined
from postroom.topics import Topic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postroom.relay.reading.batch import Batch
    from postroom.relay.saving.chunk import Chunk
    from postroom.relay.sending.acknowledgements import OnStored
    from postroom.relay.sending.brake import Brake
    from postroom.relay.sending.intents import Intents
    from postroom.relay.sending.lane import Lane
    from postroom.relay.sending.lanes import Lanes
    from postroom.relay.sending.unanswered import Unanswered
    from postroom.relay.sending.waiting import Waiting
    from postroom.routing import Routing
    from postroom.store.codec import Row
    from postroom.store.letter import Letter
    from postroom.store.outbox_rows import OutboxRows
    from postroom.store.values import Mark

__all__ = ["Outbound"]

logger = logging.getLogger(__name__)


class _Mended(NamedTuple):
    """A row that was poison, as it is on its lane now."""

    letter: Letter
    position: int


class Outbound:
    """fill() a chunk with the rows of a batch, then seal() it; both in the term's thread."""

    def __init__(
        self,
        lanes: Lanes,
        *,
        waiting: Waiting,
        outbox: OutboxRows,
        routing: Routing,
        max_message_bytes: int,
        block_on_poison: bool,
        brake: Brake,
        unanswered: Unanswered,
        intents: Intents,
    ) -> None:
        self.numbering = Numbering()
        self.overtaking = Overtaking(lanes.tails, intents)
        self.brake = brake
        self._lanes = lanes
        self._waiting = waiting
        self._outbox = outbox
        self._routing = routing
        self._max_message_bytes = max_message_bytes
        self._block_on_poison = block_on_poison
        self._unanswered = unanswered

    def fill(self, chunk: Chunk, batch: Batch) -> None:
        """Put a batch's rows on their lanes, but for those that the topics have and the poison.

        Raises:
            Blocked: a row is poison, and that is to stop the relay. The rows before it are on
                their lanes, the others are not.
            RoutingFailed: the same, until the routing's function can answer.
            TermEnded: a lane could not be opened, or something was not stored.
            pymongo.errors.PyMongoError: a lane could not be declared, or a row not be looked up.

        """
        chunk.position = self.numbering.position
        for rows in batch.slices:
            self._fill(chunk, rows)

    def _fill(self, chunk: Chunk, rows: Sequence[Row]) -> None:
        # The relay's hot loop: what it does for each event is a tenth of what the relay can do.
        routing, limit, write = self._routing, self._max_message_bytes, letter.write
        position, sent, met, payload_bytes = self.numbering.position, 0, 0, 0
        known, lane, overtaking = self._lanes.known, None, self.overtaking
        try:
            for row in rows:
                position += 1
                if known:
                    overtaking.row += 1
                    if id_text(id_of(row)) in known:
                        met += 1
                        continue
                try:
                    ready = write(row, routing, limit)
                    if lane is None or ready.topic is not lane.topic:
                        lane = self._lane_of(ready)
                    if known and self._is_there(ready):
                        met += 1
                        continue
                    number = position
                    if position <= lane.floor:
                        number = self.numbering.jump(lane, ready.id, position)
                    lane.queue(ready, number)
                    position = number
                except errors.TopicNotOpen as shut:
                    self._set_aside(row, position, shut, chunk)
                    continue
                except (errors.Poison, errors.RoutingFailed) as failed:
                    mended = self._rejected(row, position, failed, chunk)
                    if mended is None:
                        continue
                    ready, position, lane = mended.letter, mended.position, None
                sent += 1
                payload_bytes += ready.size
        finally:
            self.numbering.position = chunk.position = position
            chunk.sent += sent
            chunk.payload_bytes += payload_bytes
            self.brake.lower(sent + met)
            chunk.brake_level = self.brake.level
        chunk.add(rows)

    def _lane_of(self, ready: Letter) -> Lane:
        """Return a row's lane; raises what Lanes.of() does, and Poison for what it would reorder.

        A row that waits for its topic is told from what was refused there now: it is sent behind
        what the topic has, and what stands here behind it may be left out.
        """
        try:
            return self._lanes.of(ready.topic)
        except errors.TopicNotOpen:
            if self._lanes.known:
                self.overtaking.require_in_order(ready)
            raise

    def _is_there(self, ready: Letter) -> bool:
        """Say whether a topic has a row, which may be known only since its lane was opened."""
        if ready.id in self._lanes.known:
            return True
        self.overtaking.require_in_order(ready)
        return False

    def _set_aside(self, row: Row, position: int, shut: errors.TopicNotOpen, chunk: Chunk) -> None:
        """Have a row wait for its topic; said once for the topic, and not for each row."""
        topic = Topic(shut.topic)
        self._waiting.set_aside(topic)
        chunk.poison.append(
            Quarantined(
                row_id=id_of(row),
                position=position,
                reason=str(shut),
                topic=topic,
                is_in_order=not chunk.is_scan,
            )
        )

    def seal(self, chunk: Chunk, tell: Callable[[Landed], None]) -> None:
        """Send what was filled in; `tell` hears from every lane when its part is stored."""
        # A lane whose letters were all there already has nothing to tell.
        lanes = [lane for lane in self._lanes if lane.is_queueing]
        chunk.awaiting.update(lane.topic for lane in lanes)
        chunk.batched.update(lane.topic for lane in lanes if lane.outlet.is_batching)
        self.overtaking.intents.announce(
            each for lane in lanes if (each := lane.intent) is not None
        )
        for lane in lanes:
            lane.seal(_teller(chunk, lane.topic, tell))
        chunk.sealed = time.monotonic()

    def _rejected(
        self, row: Row, position: int, failed: errors.Poison | errors.RoutingFailed, chunk: Chunk
    ) -> _Mended | None:
        """Set a row aside; where it stops the relay, send it if it has been mended since."""
        row_id, poison = id_of(row), failed
        if isinstance(poison, errors.RoutingFailed):
            poison = self._unanswered.judged(row_id, poison)
        if self._block_on_poison or not self.brake.has_room():
            return self._looked_at_again(row, position, poison, chunk)
        logger.error(
            "Row %s can never be sent and goes into quarantine: %s",
            row_id,
            poison,
            extra={"action": "quarantine", "event_id": id_text(row_id)},
        )
        chunk.poison.append(Quarantined(row_id=row_id, position=position, reason=str(poison)))
        return None

    def _looked_at_again(
        self, row: Row, position: int, poison: errors.Poison, chunk: Chunk
    ) -> _Mended | None:
        row_id = id_of(row)
        # The stream shows the row as it was written for ever; what was done about it since is in
        # the collection.
        current = None if row_id is None else self._outbox.find(row_id)
        if current is None and row_id is not None:
            logger.warning(
                "Row %s could never be sent and was removed: the relay goes on behind it",
                row_id,
                extra={"action": "poison_removed", "event_id": id_text(row_id)},
            )
            return None
        try:
            if current is None:
                raise poison
            mended = letter.write(current, self._routing, self._max_message_bytes)
            lane = self._lane_of(mended)
            self.overtaking.require_in_order(mended)
            if position <= lane.floor:
                position = self.numbering.jump(lane, mended.id, position)
            lane.queue(mended, position)
        except errors.TopicNotOpen as shut:
            self._set_aside(row, position, shut, chunk)
            return None
        except errors.Poison as still:
            raise errors.Blocked(self._question(row_id, still)) from still
        return _Mended(mended, position)

    def _question(self, row_id: Any, poison: errors.Poison) -> str:
        remedy = "mend or remove the row"
        if isinstance(poison, OutOfTurnError):
            remedy = "remove the row, since to mend it does not help"
        if self._block_on_poison:
            return (
                f"Row {row_id} can never be sent: {poison}. POSTROOM_ON_POISON=block: the relay "
                f"stops here and looks again; {remedy}, or choose quarantine"
            )
        return (
            f"{self.brake.limit} rows more were set aside than relayed lately, and row {row_id} "
            f"would be the next: {poison}. The relay stops here and looks again, instead of "
            f"emptying the outbox into quarantine: {remedy}, or mend what they have "
            "in common, then `outbox quarantine redrive --all`; or raise POSTROOM_POISON_LIMIT if "
            "they are to be set aside"
        )


def _teller(chunk: Chunk, topic: Topic, tell: Callable[[Landed], None]) -> OnStored:
    def stored(mark: Mark) -> None:
        tell(Landed(chunk, topic, mark))

    return stored
