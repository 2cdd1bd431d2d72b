"""Outbound: puts rows on their lanes, each once, under the number that is theirs."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from postroom import errors
from postroom.relay.chunk import Landed
from postroom.relay.numbering import Numbering
from postroom.store import letter
from postroom.store.codec import id_of
from postroom.store.quarantine import Quarantined

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postroom.relay.acknowledgements import Stored
    from postroom.relay.batch import Batch
    from postroom.relay.chunk import Chunk
    from postroom.relay.lanes import Lanes
    from postroom.routing import Routing
    from postroom.store.codec import Row
    from postroom.store.letter import Letter
    from postroom.store.outbox_rows import OutboxRows
    from postroom.store.values import Mark
    from postroom.topics import Topic

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
        outbox: OutboxRows,
        routing: Routing,
        max_message_bytes: int,
        block_on_poison: bool,
    ) -> None:
        self.numbering = Numbering()
        self._lanes = lanes
        self._outbox = outbox
        self._routing = routing
        self._max_message_bytes = max_message_bytes
        self._block_on_poison = block_on_poison

    def fill(self, chunk: Chunk, batch: Batch) -> None:
        """Put a batch's rows on their lanes, but for those that the topics have and the poison.

        Raises:
            Blocked: a row is poison, and that is to stop the relay. The rows before it are on
                their lanes, the others are not.
            RoutingFailed: the same, until the routing's function can answer.

        """
        chunk.position = self.numbering.position
        if self._lanes.known and not batch.rows:
            self._lanes.forget_tails(self.numbering.position)
        for rows in batch.slices:
            self._fill(chunk, rows)

    def _fill(self, chunk: Chunk, rows: Sequence[Row]) -> None:
        # The relay's hot loop: what it does for each event is a tenth of what the relay can do.
        routing, limit, write = self._routing, self._max_message_bytes, letter.write
        position, sent, payload_bytes = self.numbering.position, 0, 0
        known, lane = self._lanes.known, None
        try:
            for row in rows:
                position += 1
                if known and str(id_of(row)) in known:
                    continue
                try:
                    ready = write(row, routing, limit)
                    if lane is None or ready.topic is not lane.topic:
                        lane = self._lanes.of(ready.topic)
                    if position <= lane.floor:
                        position = self.numbering.jump(lane, position)
                    lane.queue(ready, position)
                except errors.Poison as poison:
                    mended = self._rejected(row, position, poison, chunk)
                    if mended is None:
                        continue
                    ready, position, lane = mended.letter, mended.position, None
                sent += 1
                payload_bytes += ready.size
        finally:
            self.numbering.position = chunk.position = position
            chunk.sent += sent
            chunk.payload_bytes += payload_bytes
        chunk.add(rows)

    def seal(self, chunk: Chunk, tell: Callable[[Landed], None]) -> None:
        """Send what was filled in; `tell` hears from every lane when its part is stored."""
        # A lane whose letters were all there already has nothing to tell.
        lanes = [lane for lane in self._lanes if lane.is_queueing]
        chunk.awaiting.update(lane.topic for lane in lanes)
        for lane in lanes:
            lane.seal(_teller(chunk, lane.topic, tell))
        chunk.sealed = time.monotonic()

    def _rejected(
        self, row: Row, position: int, poison: errors.Poison, chunk: Chunk
    ) -> _Mended | None:
        """Set a row aside; where poison blocks, send it if it has been mended since."""
        row_id = id_of(row)
        if self._block_on_poison:
            return self._looked_at_again(row_id, position, poison)
        logger.error(
            "Row %s can never be sent and goes into quarantine: %s",
            row_id,
            poison,
            extra={"action": "quarantine", "event_id": str(row_id)},
        )
        chunk.poison.append(Quarantined(row_id=row_id, position=position, reason=str(poison)))
        return None

    def _looked_at_again(self, row_id: Any, position: int, poison: errors.Poison) -> _Mended | None:
        # The stream shows the row as it was written for ever; what was done about it since is in
        # the collection.
        current = None if row_id is None else self._outbox.find(row_id)
        if current is None and row_id is not None:
            logger.warning(
                "Row %s could never be sent and was removed: the relay goes on behind it",
                row_id,
                extra={"action": "poison_removed", "event_id": str(row_id)},
            )
            return None
        try:
            if current is None:
                raise poison
            mended = letter.write(current, self._routing, self._max_message_bytes)
            lane = self._lanes.of(mended.topic)
            if position <= lane.floor:
                position = self.numbering.jump(lane, position)
            lane.queue(mended, position)
        except errors.Poison as still:
            raise errors.Blocked(
                f"Row {row_id} can never be sent: {still}. POSTROOM_ON_POISON=block: the relay "
                "stops here and looks again; mend or remove the row, or choose quarantine"
            ) from still
        return _Mended(mended, position)


def _teller(chunk: Chunk, topic: Topic, tell: Callable[[Landed], None]) -> Stored:
    def stored(mark: Mark) -> None:
        tell(Landed(chunk, topic, mark))

    return stored
