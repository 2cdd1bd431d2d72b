"""A lane: one topic as the relay sends to it, fenced against every older relay.

A term opens each lane the same way: fence, then read the tail. The fence makes an older holder's
sends fail from here on; the tail, read after it, is all that was stored since the checkpoint, so
that nothing is sent a second time.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom import broker, errors, wire

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    import pulsar

    from postroom.relay.letter import Letter

__all__ = ["Lane", "LaneOptions", "Stored"]

logger = logging.getLogger(__name__)

Stored = Callable[[Any, Any], None]

# More than the term keeps in flight, so that the client never blocks inside a send.
MAX_PENDING_MESSAGES = 50_000
BATCH_MESSAGES = 1000
BATCH_BYTES = 1 << 20
BATCH_DELAY_MS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneOptions:
    """What all lanes of a term have in common.

    `fenced` says whether the broker can fence.
    `batch_keyed` lets messages of different keys share a batch: twice as fast, but a Key_Shared
    subscription then spreads one key over several consumers.
    """

    producer_name: str
    fenced: bool
    send_timeout: timedelta
    read_timeout: timedelta
    batch_keyed: bool


class Lane:
    """Sends letters to one topic, in the order given; open() it and close() it in one thread.

    `tail` holds the ids of the letters that the topic already has; the term takes out each one that
    it meets. `floor` is the highest position that the broker may know from us.
    """

    def __init__(self, client: pulsar.Client, topic: str, *, options: LaneOptions) -> None:
        self.topic = topic
        self.tail: set[str] = set()
        self.floor = 0
        self._client = client
        self._options = options
        self._producer: pulsar.Producer | None = None
        self._batching = True
        self._fenced = options.fenced
        self._send_async: Any = None
        self._builder: Any = None
        self._ready: list[Any] = []

    def open(
        self,
        *,
        since: bytes | None,
        declared: bool,
        published_since: datetime | None,
        keyed: bool,
        shared: bool = False,
    ) -> bytes | None:
        """Fence the topic, then read its tail; return the mark from which the lane counts.

        `since` is the checkpoint's mark. A lane that was never `declared` has no tail: nothing was
        sent on it; its mark is the topic's end as it is now. A `shared` topic has other producers,
        which a fence would throw out: there a frozen relay that wakes up may send some twice.
        """
        self._fenced = self._options.fenced and not shared
        self._batching = self._options.batch_keyed or not keyed
        self._produce()
        if published_since is not None:
            self._read_tail(None, published_since)
        elif declared:
            self._read_tail(since, None)
        else:
            return self._end()
        return since

    def _produce(self) -> None:
        import _pulsar
        import pulsar

        mode = pulsar.ProducerAccessMode
        self._producer = self._client.create_producer(
            self.topic,
            producer_name=self._options.producer_name,
            access_mode=mode.ExclusiveWithFencing if self._fenced else mode.Shared,
            batching_enabled=self._batching,
            batching_max_messages=BATCH_MESSAGES,
            batching_max_allowed_size_in_bytes=BATCH_BYTES,
            batching_max_publish_delay_ms=BATCH_DELAY_MS,
            max_pending_messages=MAX_PENDING_MESSAGES,
            block_if_queue_full=True,
            send_timeout_millis=round(self._options.send_timeout.total_seconds() * 1000),
        )
        # The client's own method: the wrapper around it checks and copies each argument again.
        self._send_async = self._producer._producer.send_async  # noqa: SLF001
        self._builder = _pulsar.MessageBuilder
        # With deduplication the broker drops what is not above the last id that it knows.
        self.floor = max(self.floor, self._producer.last_sequence_id())

    def _end(self) -> bytes | None:
        import pulsar

        if not self._options.fenced:
            # The embedded broker never finds a last message, and at times hangs over the attempt.
            # Reading from the topic's beginning, as None asks for, is slower and as good.
            return None
        reader = self._client.create_reader(
            self.topic, pulsar.MessageId.latest, start_message_id_inclusive=True
        )
        with contextlib.closing(reader):
            message = self._read(reader)
        return None if message is None else message.message_id().serialize()

    def _read_tail(self, since: bytes | None, published_since: datetime | None) -> None:
        import pulsar

        start = pulsar.MessageId.deserialize(since) if since else pulsar.MessageId.earliest
        reader = self._client.create_reader(self.topic, start)
        with contextlib.closing(reader):
            if published_since is not None:
                reader.seek(round(published_since.timestamp() * 1000))
            while message := self._read(reader):
                if message.producer_name() == self._options.producer_name:
                    self._found(message.properties())

    def _read(self, reader: pulsar.Reader) -> pulsar.Message | None:
        import pulsar

        try:
            if not reader.has_message_available():
                return None
            return reader.read_next(round(self._options.read_timeout.total_seconds() * 1000))
        except pulsar.UnknownError:
            # The embedded broker's way to say that the topic is empty.
            return None

    def _found(self, properties: dict[str, str]) -> None:
        row_id = properties.get(wire.ID)
        if row_id is None:
            return
        self.tail.add(row_id)
        with contextlib.suppress(ValueError):
            self.floor = max(self.floor, int(properties.get(wire.POSITION, "0")))

    def send(self, letter: Letter, position: int) -> None:
        """Put a letter behind all that was sent before; it leaves at the latest with seal().

        Two letters are never sent in one batch with different keys: a Key_Shared subscription
        takes a batch's first key for all of it. So a lane with keys does without batches.
        """
        if letter.key is not None and self._batching and not self._options.batch_keyed:
            self._stop_batching()
        if letter.deliver_at:
            # A delayed message overtakes an open batch, and deduplication would then drop that.
            self._flush()
        # The client's own builder, without the wrapper around it that checks each argument again:
        # a fifth of the relay's time.
        message = self._builder()
        message.content(letter.payload)
        message.property(wire.ID, letter.id)
        message.property(wire.POSITION, str(position))
        message.sequence_id(position)
        if letter.headers:
            for name, value in letter.headers.items():
                message.property(name, value)
        if letter.key is not None:
            message.partition_key(letter.key)
        if letter.occurred_at > 0:
            message.event_timestamp(letter.occurred_at)
        if letter.deliver_at > 0:
            message.deliver_at(letter.deliver_at)
        self._ready.append(message.build())

    @property
    def has_ready(self) -> bool:
        """Whether there is anything to seal."""
        return bool(self._ready)

    def push(self) -> None:
        """Send what is ready, all but the last: seal() needs one to hang its callback on."""
        *others, last = self._ready
        self._ready = [last]
        send = self._send_async
        for message in others:
            send(message, None)

    def seal(self, stored: Stored) -> None:
        """Send the rest, and have `stored` called when all up to it is stored.

        Acknowledgements come in order and a failure fails all that is pending, so one callback a
        chunk tells of every letter in it, at a third of the cost of one each. It runs in a thread
        of the client: it must be quick and not raise.
        """
        self.push()
        self._send_async(self._ready.pop(), stored)

    def _flush(self) -> None:
        ready, self._ready = self._ready, []
        for message in ready:
            self._send_async(message, None)
        self._require().flush()

    def _stop_batching(self) -> None:
        logger.info("Events on %s have keys: they are sent without batches from here", self.topic)
        self._flush()
        self.close()
        self._batching = False
        self._produce()

    def _require(self) -> pulsar.Producer:
        if self._producer is None:
            raise errors.TermEnded(f"The lane of {self.topic} is closed; a new term begins")
        return self._producer

    def close(self) -> None:
        """Close the producer; what is not stored by now fails, and the next term sends it."""
        if self._producer is not None:
            broker.close(self._producer)
            self._producer = None
