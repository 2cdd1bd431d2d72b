"""The tail: what earlier terms stored on a topic behind its mark in the checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from postroom import errors, wire
from postroom.relay.sending.known_ids import KnownIds
from postroom.relay.sending.readback import ConnectionLostError, Readback, Surroundings
from postroom.relay.sending.setback import REMEDY, place, put_back_to
from postroom.store import letter
from postroom.store.values import Mark

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    import pulsar

    from postroom.pulsar_admin import PulsarAdmin
    from postroom.relay.sending.lane_options import LaneOptions
    from postroom.topics import Topic

__all__ = ["First", "Span", "Tail", "TailReader"]

logger = logging.getLogger(__name__)

# An older holder's last messages may still be on their way into the topic's storage.
UNCONFIRMED_SECONDS = 30.0
PAUSE_SECONDS = 0.1
# What is under way when a term ends is less, and there is no order to tell but of that.
MOST_SIZES = 100_000


class First(NamedTuple):
    """The first event that a topic still has, by the number that the relay gave it."""

    row_id: str
    position: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The ids of the events that were found.

    `sizes` are theirs, as letters are measured, or those of the last ones; none where a scan is for
    what the topic lacks.
    `first` is named where those before it may have been stored and deleted, None where the topic
    has all. `floor` is the highest position that the broker has of us: what has a number up to that
    would be dropped by its deduplication.
    """

    ids: KnownIds = field(default_factory=KnownIds)
    sizes: Mapping[str, int] = field(default_factory=dict)
    first: First | None = None
    floor: int = 0

    def joined(self, earlier: Tail) -> Tail:
        """Return this one with what was found earlier, and is gone by now perhaps."""
        self.ids.absorb(earlier.ids)
        return dataclasses.replace(self, sizes={**earlier.sizes, **self.sizes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where a tail begins: behind a mark, None for the topic's beginning, or at a time instead.

    `position` is that of the checkpoint. `is_checked` asks whether the mark's own message is there,
    `is_for_scan` says that it is for leaving out what the topic has, and may be long; `is_unsure`
    that nothing is known to have been sent there ever.
    """

    mark: Mark | None
    position: int
    published_since: datetime | None = None
    is_checked: bool = False
    is_for_scan: bool = False
    is_unsure: bool = False


@dataclass(slots=True)
class _Found:
    ids: KnownIds = field(default_factory=KnownIds)
    sizes: dict[str, int] = field(default_factory=dict)
    # A scan reads back so much that only the ids have room, and so may a tail without a mark.
    has_sizes: bool = True
    passed: dict[str, int] = field(default_factory=dict)
    floor: int = 0
    highest: int = 0
    # Whether the message that the mark names is there no longer.
    is_cut: bool = False
    # Whether all before the first message is there as well; None until there is a first one.
    is_whole: bool | None = None
    first: First | None = None

    def add(self, message: pulsar.Message, *, ours: bool) -> None:
        properties = message.properties()
        row_id, position = properties.get(wire.ID), properties.get(wire.POSITION, "")
        if row_id is not None:
            self.ids.add(row_id)
            if self.first is None:
                self.first = First(row_id, int(position) if position.isdecimal() else inf)
            if self.has_sizes:
                if len(self.sizes) >= MOST_SIZES:
                    self.passed, self.sizes = self.sizes, {}
                key = message.partition_key()
                self.sizes[row_id] = letter.measured(message.data(), key, properties)
        if ours and position.isdecimal():
            # The broker's deduplication goes by the name.
            self.floor = max(self.floor, int(position))
            self.highest = max(self.highest, int(position))

    def tail(self) -> Tail:
        first = None if self.is_whole else self.first
        sizes = {**self.passed, **self.sizes}
        return Tail(ids=self.ids, sizes=sizes, first=first, floor=self.floor)


class TailReader:
    """Reads topics back for one term; blocks, for as long as there is something to read."""

    def __init__(
        self,
        client: pulsar.Client,
        *,
        options: LaneOptions,
        admin: PulsarAdmin,
        stopping: threading.Event,
        paused: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        self._client = client
        self._options = options
        self._stopping = stopping
        self._paused = paused
        self._around = Surroundings(
            options=options, admin=admin, require_office=self._require_office, say=say
        )

    def read(
        self,
        topic: Topic,
        span: Span,
        *,
        shared: bool,
        pushed: int,
        begun: Callable[[bool], bool] = lambda _: False,
    ) -> Tail:
        """Read a topic to its end, once it is fenced.

        `pushed` is the last position that the broker's deduplication knows, or -1. `begun` is told,
        before the rest is read, whether the message that the mark names is there no longer, and
        says whether the topic knows nothing of this relay although it has a mark.

        Raises:
            TermEnded: the relay was stopped meanwhile, or the connection was lost.
            pulsar.PulsarException: the topic cannot be read.

        """
        found = _Found(floor=max(0, pushed), highest=span.position, has_sizes=not span.is_for_scan)
        own_name = self._options.name_on(shared=shared)
        with self._readback(topic, span, found, own_name) as readback:
            is_made_anew = begun(found.is_cut)
            self._read_to_the_end(readback, found, own_name)
            self._await_unconfirmed(topic, readback, found, own_name, pushed)
        if found.is_cut:
            has_later = bool(found.ids) or pushed > span.position
            self._say_what_is_gone(topic, span, has_later=has_later, is_made_anew=is_made_anew)
        return found.tail()

    @contextlib.contextmanager
    def _readback(
        self, topic: Topic, span: Span, found: _Found, own_name: str
    ) -> Iterator[Readback]:
        """Lend what goes on behind the mark; take note of what had to be read for it."""
        import pulsar

        mark = span.mark
        is_checked = mark is not None and span.is_checked and self._options.fenced
        start = pulsar.MessageId.deserialize(mark) if mark else pulsar.MessageId.earliest
        # With the mark's own message, to see that it and all behind it is there.
        reader = self._client.create_reader(topic, start, start_message_id_inclusive=is_checked)
        with contextlib.closing(reader):
            if span.published_since is not None:
                reader.seek(round(span.published_since.timestamp() * 1000))
            readback = Readback(topic, reader, self._around)
            if is_checked:
                first = readback.next()
                found.is_cut = not _is_at(first, start)
                if found.is_cut:
                    self._note(first, found, own_name)
                else:
                    found.is_whole = True
            yield readback

    def _say_what_is_gone(
        self, topic: Topic, span: Span, *, has_later: bool, is_made_anew: bool
    ) -> None:
        """Say what it means that the mark's message is not there, if it means anything."""
        import pulsar

        mark = pulsar.MessageId.deserialize(span.mark)
        if (back_to := put_back_to(mark, self._last(topic))) is not None:
            logger.error(
                "%s was put back to an earlier time: its last message is of %s, and the checkpoint "
                "speaks for a later one. What was sent since is missing there, and the relay goes "
                "on behind it: %s",
                topic,
                f"{back_to:%Y-%m-%dT%H:%M:%SZ}",
                REMEDY.format(topic=topic),
                extra={"action": "topic_put_back", "topic": topic},
            )
        elif is_made_anew:
            logger.error(
                "%s was made anew: it has nothing of this relay's, not even its subscription, and "
                "the checkpoint speaks for a message there. What was sent before is missing, and "
                "the relay goes on behind it: %s",
                topic,
                REMEDY.format(topic=topic),
                extra={"action": "topic_made_anew", "topic": topic},
            )
        elif has_later:
            logger.warning(
                "%s no longer keeps the message up to which the checkpoint speaks for it: what was "
                "sent from there to the first that is left cannot be seen, and is sent again. Its "
                "namespace needs some retention: pulsar-admin namespaces set-retention",
                topic,
                extra={"action": "tail_cut", "topic": topic},
            )

    def read_terminated(self, topic: Topic, span: Span, *, shared: bool) -> Tail:
        """Read a topic that takes nothing more; the reader's client should serve nobody else.

        At the end it loses its connection, since it does not understand the broker's word for that.

        Raises:
            TermEnded: the relay was stopped meanwhile, or the connection was lost before.
            pulsar.PulsarException: the topic cannot be read.

        """
        found = _Found(highest=span.position, has_sizes=not span.is_for_scan)
        own_name = self._options.name_on(shared=shared)
        with self._readback(topic, span, found, own_name) as readback:
            before = readback.messages
            try:
                self._read_to_the_end(readback, found, own_name)
            except ConnectionLostError:
                # The end was known when the first message was found, and is reached.
                if readback.messages == before:
                    raise
        return found.tail()

    def end(self, topic: Topic) -> Mark | None:
        """Return a mark at the topic's end, or None for its beginning where that is not known."""
        if not self._options.fenced:
            # The embedded broker never finds a last message, and at times hangs over the attempt.
            # Reading from the topic's beginning, as None asks for, is slower and as good.
            return None
        message = self._last(topic)
        return None if message is None else Mark(message.message_id().serialize())

    def _last(self, topic: Topic) -> pulsar.Message | None:
        import pulsar

        reader = self._client.create_reader(
            topic, pulsar.MessageId.latest, start_message_id_inclusive=True
        )
        with contextlib.closing(reader):
            return Readback(topic, reader, self._around).next()

    def _read_to_the_end(self, readback: Readback, found: _Found, own_name: str) -> None:
        while message := readback.next():
            self._note(message, found, own_name)

    def _note(self, message: pulsar.Message | None, found: _Found, own_name: str) -> None:
        if message is None:
            return
        if found.is_whole is None:
            # Pulsar deletes from the beginning, and a ledger only as a whole.
            found.is_whole = message.message_id().entry_id() > 0
        name = message.producer_name()
        if name in self._options.names:
            found.add(message, ours=name == own_name)

    def _await_unconfirmed(
        self, topic: Topic, readback: Readback, found: _Found, own_name: str, pushed: int
    ) -> None:
        # What an older holder had sent may be accepted by the broker and not yet stored: no reader
        # sees it, but deduplication knows its number.
        deadline = time.monotonic() + UNCONFIRMED_SECONDS
        while pushed > found.highest and time.monotonic() < deadline:
            self._stopping.wait(PAUSE_SECONDS)
            self._read_to_the_end(readback, found, own_name)
        if pushed > found.highest:
            logger.warning(
                "The broker knows position %d on %s, but the topic ends at %d: its last messages "
                "are gone, or will be there twice",
                pushed,
                topic,
                found.highest,
                extra={"action": "unconfirmed"},
            )

    def _require_office(self) -> None:
        # Whoever comes next reads all of it again: to read on would only make it wait.
        if self._stopping.is_set() or self._paused.is_set():
            raise errors.OpeningLeft("The relay was stopped or paused while it read a topic's tail")


def _is_at(message: pulsar.Message | None, start: pulsar.MessageId) -> bool:
    return message is not None and place(message.message_id()) == place(start)
