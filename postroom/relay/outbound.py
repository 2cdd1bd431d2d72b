"""Outbound: puts rows on their lanes, each once, under the number that is theirs."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from postroom import broker, errors
from postroom.relay.lane import Lane, LaneOptions
from postroom.store import letter
from postroom.store.codec import id_of
from postroom.store.quarantine import Quarantined

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    import pulsar

    from postroom.relay.batch import Batch
    from postroom.relay.chunk import Chunk, Tell
    from postroom.relay.lane import Refused
    from postroom.relay.saver import Saver
    from postroom.routing import Routing
    from postroom.store.codec import Row
    from postroom.store.letter import Letter
    from postroom.store.outbox_rows import OutboxRows
    from postroom.topics import Topic

__all__ = ["Outbound"]

logger = logging.getLogger(__name__)


class Outbound:
    """The lanes of a term, and the position of the last row that was put on one.

    fill() a chunk, then seal() it; both in the term's thread.
    """

    def __init__(
        self,
        client: pulsar.Client,
        *,
        outbox: OutboxRows,
        routing: Routing,
        saver: Saver,
        lanes: LaneOptions,
        max_message_bytes: int,
        block_on_poison: bool,
        refused: Refused,
        stopping: threading.Event,
    ) -> None:
        self._client = client
        self._refused = refused
        self._stopping = stopping
        self._outbox = outbox
        self._routing = routing
        self._saver = saver
        self._lane_options = lanes
        self._max_message_bytes = max_message_bytes
        self._block_on_poison = block_on_poison
        self._lanes: dict[Topic, Lane] = {}
        self._unopened: dict[Topic, str] = {}
        self._published_since: datetime | None = None
        self._position = 0
        self._touched: set[Lane] = set()

    def open(
        self, topics: Iterable[Topic], *, position: int, published_since: datetime | None
    ) -> None:
        """Go on behind `position`; fence all known topics before the first send.

        So an older holder is out of all of them; the others are fenced when the first event goes
        there. With `published_since`, the tail is all that a topic received since.
        """
        self._position = position
        self._published_since = published_since
        for topic in topics:
            self._open_declared(topic)

    def _open_declared(self, topic: Topic) -> None:
        import pulsar

        try:
            self._open_lane(topic)
        except pulsar.TopicNotFound:
            # Nothing may ever go there again; if something does, the lane is opened then.
            logger.warning("The topic %s is gone; it is opened when an event goes there", topic)
        except errors.PartitionedTopic as error:
            if topic in self._routing.topics:
                raise
            logger.warning("%s; it is no longer read either", error)

    def scan_is_over(self) -> None:
        """Read the tail of a lane from its mark on, from now on; what is in the tails was met.

        The stream goes on from a time after they were read.
        """
        self._published_since = None
        for lane in self._lanes.values():
            lane.tail.clear()

    def mark_shared_ends(self) -> None:
        """Have the checkpoint begin the tails of shared lanes at their topics' ends, as they are.

        To be called while nothing is in flight. Where others send much and we little, the next
        term would have to read all of theirs.
        """
        import pulsar

        for lane in self._lanes.values():
            # It saves reading, and is no reason to end a term.
            with contextlib.suppress(pulsar.PulsarException, errors.TermEnded):
                if lane.shared and (mark := lane.end()) is not None:
                    self._saver.mark(lane.topic, mark)

    def _lane(self, topic: Topic) -> Lane:
        """Return the lane of a topic, opened if it has to be.

        Raises:
            Poison: the topic can never be opened, and nothing was ever sent there.

        """
        import pulsar

        lane = self._lanes.get(topic)
        if lane is None:
            if topic in self._unopened:
                raise errors.Poison(self._unopened[topic])
            try:
                lane = self._open_lane(topic)
            except (errors.PartitionedTopic, pulsar.PulsarException) as error:
                reason = self._why_it_never_opens(topic, error)
                if reason is None:
                    raise
                self._unopened[topic] = reason
                raise errors.Poison(reason) from error
        self._touched.add(lane)
        return lane

    def _why_it_never_opens(self, topic: Topic, error: Exception) -> str | None:
        import pulsar

        if self._saver.is_declared(topic):
            return None
        if isinstance(error, errors.PartitionedTopic):
            return None if topic in self._routing.topics else str(error)
        # Rights are granted later, and without the default topic there is nothing to go on with.
        waits = (pulsar.AuthorizationError, pulsar.AuthenticationError)
        if isinstance(error, waits) or topic == self._routing.default:
            return None
        if errors.is_transient(error) and not isinstance(error, pulsar.TopicNotFound):
            return None
        return f"The topic {topic} cannot be opened ({type(error).__name__})"

    def _open_lane(self, topic: Topic) -> Lane:
        broker.require_unpartitioned(self._client, topic)
        lane = Lane(
            self._client,
            topic,
            shared=self._routing.is_shared(topic),
            options=self._lane_options,
            confirm=self._saver.confirm,
            refused=self._refused,
            stopping=self._stopping,
        )
        declared = self._saver.is_declared(topic)
        try:
            mark = lane.open(
                since=self._saver.mark_of(topic),
                declared=declared,
                published_since=self._published_since,
                position=self._position,
                keyed=self._routing.keyed,
            )
        except BaseException:
            lane.close()
            raise
        self._lanes[topic] = lane
        if not declared:
            self._saver.declare(topic, mark)
        self._saver.renew_trust()
        if lane.tail:
            logger.info(
                "%d events after the checkpoint are on %s already and are left out",
                len(lane.tail),
                topic,
                extra={"action": "tail"},
            )
        return lane

    def fill(self, chunk: Chunk, batch: Batch) -> None:
        """Put a batch's rows on their lanes, but for those that the topics have and the poison.

        Raises:
            Blocked: a row is poison, and that is to stop the relay. The rows before it are on
                their lanes, the others are not.

        """
        chunk.position = self._position
        for rows in batch.slices:
            self._fill(chunk, rows)
            for lane in self._touched:
                lane.push_if_many()

    def _fill(self, chunk: Chunk, rows: Sequence[Row]) -> None:
        # The relay's hot loop: what it does for each event is a tenth of what the relay can do.
        routing, limit, write = self._routing, self._max_message_bytes, letter.write
        position, sent, payload_bytes = self._position, 0, 0
        lane: Lane | None = None
        try:
            for row in rows:
                position += 1
                try:
                    ready = write(row, routing, limit)
                    if lane is None or ready.topic is not lane.topic:
                        lane = self._lane(ready.topic)
                except errors.Poison as poison:
                    mended = self._rejected(row, position, poison, chunk)
                    if mended is None:
                        continue
                    ready = mended
                    lane = self._lane(ready.topic)
                if lane.tail and ready.id in lane.tail:
                    lane.tail.discard(ready.id)
                    continue
                if position <= lane.floor:
                    position = self._renumbered(lane, position)
                lane.send(ready, position)
                sent += 1
                payload_bytes += ready.size
        finally:
            self._position = chunk.position = position
            chunk.sent += sent
            chunk.payload_bytes += payload_bytes
        chunk.add(rows)

    def seal(self, chunk: Chunk, tell: Tell) -> None:
        """Send what was filled in; `tell` hears from every lane when its part is stored."""
        # A lane whose letters were all there already has nothing to tell.
        ready = [lane for lane in self._touched if lane.has_ready]
        self._touched.clear()
        chunk.awaiting = len(ready)
        for lane in ready:
            lane.seal(chunk.teller(lane.topic, tell))

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

    def _rejected(
        self, row: Row, position: int, poison: errors.Poison, chunk: Chunk
    ) -> Letter | None:
        """Set a row aside; where poison blocks, return its letter if it has been mended since."""
        row_id = id_of(row)
        if self._block_on_poison:
            return self._looked_at_again(row_id, poison)
        logger.error(
            "Row %s can never be sent and goes into quarantine: %s",
            row_id,
            poison,
            extra={"action": "quarantine", "event_id": str(row_id)},
        )
        chunk.poison.append(Quarantined(row_id=row_id, position=position, reason=str(poison)))
        return None

    def _looked_at_again(self, row_id: Any, poison: errors.Poison) -> Letter | None:
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
            self._lane(mended.topic)
        except errors.Poison as still:
            raise errors.Blocked(
                f"Row {row_id} can never be sent: {still}. POSTROOM_ON_POISON=block: the relay "
                "stops here and looks again; mend or remove the row, or choose quarantine"
            ) from still
        return mended

    def close(self) -> None:
        """Close all lanes; what is not stored by now fails, and the next term sends it."""
        for lane in self._lanes.values():
            lane.close()
