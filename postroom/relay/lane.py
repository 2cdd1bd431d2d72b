"""A lane: one topic as the relay sends to it, fenced against every older relay.

A term opens each lane the same way: fence, then read the tail. The fence makes an older holder's
sends fail from here on; the tail, read after it, is all that was stored since the checkpoint, so
that nothing is sent a second time.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom import broker, errors, pulsar_adapter, wire
from postroom.store.values import Mark
from postroom.topics import Topic

if TYPE_CHECKING:
    import threading
    from datetime import datetime, timedelta

    import pulsar

    from postroom.store.letter import Letter

__all__ = ["Lane", "LaneOptions", "Refused", "Stored"]

logger = logging.getLogger(__name__)

Stored = Callable[[Any, Any], None]
# Told the topic, the result and the size of a large message, or 0, where the broker did not store
# something; called in the client's threads.
Refused = Callable[[Topic, Any, int], None]

# More than the term keeps in flight, so that the client never blocks inside a send.
MAX_PENDING_MESSAGES = 50_000
BATCH_MESSAGES = 1000
# A batch that is larger than the broker takes fails without a word, and the client counts payloads
# alone. Once the first and twice the second, with ids and positions, stay below the lowest limit in
# use, a mebibyte.
BATCH_BYTES = 128 << 10
BATCH_BYTES_BESIDE = 256 << 10
BATCH_DELAY_MS = 1
# Messages are handed to the client in bursts: in a trickle its timer would cut small batches, each
# of which costs the broker as much as a large one.
BURST_MESSAGES = 500
# So does a single message. One that may be too large for the broker, whatever the settings say, is
# asked after by a callback of its own.
LARGE_BYTES = 64 << 10
# An older holder's last messages may still be on their way into the topic's storage.
UNCONFIRMED_SECONDS = 30.0
PAUSE_SECONDS = 0.1
REMIND_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneOptions:
    """What all lanes of a term have in common.

    `producer_name` is the relays' own on fenced topics; `shared_producer_name` tells the outboxes
    apart that send to one shared topic. `fenced` says whether the broker can fence.
    `batch_keyed` lets messages of different keys share a batch: twice as fast, but a Key_Shared
    subscription then spreads one key over several consumers.
    """

    producer_name: str
    shared_producer_name: str
    fenced: bool
    send_timeout: timedelta
    read_timeout: timedelta
    batch_keyed: bool


class Lane:
    """Sends letters to one topic, in the order given; open() it and close() it in one thread.

    `tail` holds the ids of the letters that the topic already has; the term takes out each one that
    it meets. `floor` is the highest position that the broker may know from us.
    """

    def __init__(
        self,
        client: pulsar.Client,
        topic: Topic,
        *,
        shared: bool = False,
        options: LaneOptions,
        confirm: Callable[[], None],
        refused: Refused,
        stopping: threading.Event,
    ) -> None:
        self.topic = topic
        self.shared = shared
        self.tail: set[str] = set()
        self.floor = 0
        self._client = client
        self._options = options
        self._confirm = confirm
        self._refused = refused
        self._stopping = stopping
        self._producer: pulsar.Producer | None = None
        self._batching = True
        self._fenced = options.fenced and not shared
        self._name = options.shared_producer_name if shared else options.producer_name
        # Both, since a topic may have been declared shared, or no longer, since the last term.
        self._names = {options.shared_producer_name, options.producer_name}
        self._pushed = -1
        self._bytes_beside = 0
        self._letters_beside = 0
        self._send_async: Any = None
        self._builder: Any = None
        self._ready: list[tuple[Any, Any]] = []

    def open(
        self,
        *,
        since: Mark | None,
        declared: bool,
        published_since: datetime | None,
        position: int,
        keyed: bool,
    ) -> Mark | None:
        """Fence the topic, then read its tail; return the mark from which the lane counts.

        `since` is the checkpoint's mark, `position` its position. A lane that was never `declared`
        has no tail: nothing was sent on it; its mark is the topic's end as it is now.

        A `shared` topic has other producers, which a fence would throw out: there a frozen relay
        that wakes up may send some twice.
        """
        self._batching = self._options.batch_keyed or not keyed
        self._produce()
        if published_since is not None:
            self._read_tail(None, position, published_since)
        elif declared:
            self._read_tail(since, position, None)
        else:
            return self.end()
        return since

    def _produce(self) -> None:
        import pulsar

        mode = pulsar.ProducerAccessMode
        self._producer = self._client.create_producer(
            self.topic,
            producer_name=self._name,
            access_mode=mode.ExclusiveWithFencing if self._fenced else mode.Shared,
            batching_enabled=self._batching,
            batching_max_messages=BATCH_MESSAGES,
            batching_max_allowed_size_in_bytes=BATCH_BYTES,
            batching_max_publish_delay_ms=BATCH_DELAY_MS,
            max_pending_messages=MAX_PENDING_MESSAGES,
            block_if_queue_full=True,
            send_timeout_millis=round(self._options.send_timeout.total_seconds() * 1000),
        )
        self._send_async = pulsar_adapter.send_async(self._producer)
        self._builder = pulsar_adapter.message_builder()
        # With deduplication the broker drops what is not above the last id that it knows.
        self._pushed = self._producer.last_sequence_id()
        self.floor = max(self.floor, self._pushed)

    def end(self) -> Mark | None:
        """Return a mark at the topic's end, or None for its beginning where that is not known."""
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
        return None if message is None else Mark(message.message_id().serialize())

    def _read_tail(
        self, since: Mark | None, position: int, published_since: datetime | None
    ) -> None:
        import pulsar

        start = pulsar.MessageId.deserialize(since) if since else pulsar.MessageId.earliest
        reader = self._client.create_reader(self.topic, start)
        with contextlib.closing(reader):
            if published_since is not None:
                reader.seek(round(published_since.timestamp() * 1000))
            highest = self._read_to_the_end(reader, position)
            self._await_unconfirmed(reader, highest)

    def _read_to_the_end(self, reader: pulsar.Reader, highest: int) -> int:
        read, said_at = 0, time.monotonic()
        while message := self._read(reader):
            if self._stopping.is_set():
                raise errors.TermEnded("The relay was stopped while it opened a term")
            read += 1
            if time.monotonic() - said_at > REMIND_SECONDS:
                logger.info(
                    "Reading what %s received since the checkpoint: %d messages so far",
                    self.topic,
                    read,
                )
                said_at = time.monotonic()
            name = message.producer_name()
            if name in self._names:
                number = self._found(message.properties())
                if name == self._name:
                    # The broker's deduplication goes by the name.
                    self.floor = max(self.floor, number)
                    highest = max(highest, number)
        return highest

    def _await_unconfirmed(self, reader: pulsar.Reader, highest: int) -> None:
        # What an older holder had sent may be accepted by the broker and not yet stored: no reader
        # sees it, but deduplication knows its number.
        deadline = time.monotonic() + UNCONFIRMED_SECONDS
        while self._pushed > highest and time.monotonic() < deadline:
            if self._stopping.wait(PAUSE_SECONDS):
                raise errors.TermEnded("The relay was stopped while it opened a term")
            highest = self._read_to_the_end(reader, highest)
        if self._pushed > highest:
            logger.warning(
                "The broker knows position %d on %s, but the topic ends at %d: its last messages "
                "are gone, or will be there twice",
                self._pushed,
                self.topic,
                highest,
                extra={"action": "unconfirmed"},
            )

    def _read(self, reader: pulsar.Reader) -> pulsar.Message | None:
        import pulsar

        try:
            if not self._has_more(reader):
                return None
            return reader.read_next(round(self._options.read_timeout.total_seconds() * 1000))
        except pulsar.UnknownError:
            if self._options.fenced:
                raise
            # The embedded broker's way to say that the topic is empty.
            return None

    def _has_more(self, reader: pulsar.Reader) -> bool:
        # The client answers no as well where the connection was lost while it asked.
        for _ in range(2):
            if reader.has_message_available():
                return True
            if not reader.is_connected():
                raise errors.TermEnded(
                    f"The connection was lost while the end of {self.topic} was read; a new term "
                    "begins"
                )
        return False

    def _found(self, properties: dict[str, str]) -> int:
        row_id, position = properties.get(wire.ID), properties.get(wire.POSITION, "")
        if row_id is not None:
            self.tail.add(row_id)
        return int(position) if position.isdecimal() else 0

    def send(self, letter: Letter, position: int) -> None:
        """Put a letter behind all that was sent before; it leaves at the latest with seal().

        Two letters are never sent in one batch with different keys: a Key_Shared subscription
        takes a batch's first key for all of it. So a lane with keys does without batches.
        """
        if letter.key is not None and self._batching and not self._options.batch_keyed:
            self._stop_batching()
        if letter.deliver_at and self._batching:
            # A delayed message overtakes an open batch, and deduplication would then drop that.
            self._flush()
        size = letter.size
        if size > len(letter.payload) or self._bytes_beside > BATCH_BYTES_BESIDE:
            self._make_room(size - len(letter.payload))
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
        watch = None if size < LARGE_BYTES else self._watching(size)
        self._ready.append((message.build(), watch))

    def _make_room(self, beside: int) -> None:
        """Begin a new batch where the headers of this one would make it too large."""
        if self._letters_beside == BATCH_MESSAGES:
            # A batch of the client has no more.
            self._bytes_beside = self._letters_beside = 0
        self._bytes_beside += beside
        self._letters_beside += 1
        if self._batching and self._bytes_beside > BATCH_BYTES_BESIDE:
            self._flush()
            self._bytes_beside, self._letters_beside = beside, 1

    def _watching(self, size: int) -> Stored:
        import pulsar

        stored = pulsar.Result.Ok

        def told(result: Any, _: Any) -> None:
            if result != stored:
                self._refused(self.topic, result, size)

        return told

    @property
    def has_ready(self) -> bool:
        """Whether there is anything to seal."""
        return bool(self._ready)

    def push_if_many(self) -> None:
        """Send what is ready, once it is enough to fill a batch in one burst."""
        if len(self._ready) >= BURST_MESSAGES:
            self.push()

    def push(self) -> None:
        """Send what is ready, all but the last: seal() needs one to hang its callback on.

        The burst's own last message is watched. What waits for an acknowledgement fails all at
        once, so that one tells of a failure between this burst and the next.
        """
        *others, last = self._ready
        self._ready = [last]
        if others:
            self._send(others, last_watch=self._watching(0))

    def seal(self, stored: Stored) -> None:
        """Send the rest, and have `stored` called when all up to it is stored.

        Acknowledgements come in order and a failure fails all that is pending, so one callback a
        chunk tells of every letter in it, at a third of the cost of one each. It runs in a thread
        of the client: it must be quick and not raise.
        """
        ready, self._ready = self._ready, []
        self._send(ready, last_watch=stored)

    def _send(self, messages: Sequence[tuple[Any, Stored | None]], *, last_watch: Stored) -> None:
        *others, (last, watch) = messages
        send = self._send_async
        for message, of_its_own in others:
            send(message, of_its_own)
        if watch is None:
            send(last, last_watch)
            return

        def told(result: Any, message_id: Any) -> None:
            watch(result, message_id)
            last_watch(result, message_id)

        send(last, told)

    def _flush(self) -> None:
        if self._ready:
            self.seal(self._watching(0))
        self._require().flush()

    def _stop_batching(self) -> None:
        logger.info("Events on %s have keys: they are sent without batches from here", self.topic)
        self._flush()
        self.close()
        self._batching = False
        self._produce()
        # Frozen before that, the relay has now fenced out the one that replaced it.
        self._confirm()

    def _require(self) -> pulsar.Producer:
        if self._producer is None:
            raise errors.TermEnded(f"The lane of {self.topic} is closed; a new term begins")
        return self._producer

    def close(self) -> None:
        """Close the producer; what is not stored by now fails, and the next term sends it."""
        if self._producer is not None:
            broker.close(self._producer)
            self._producer = None
