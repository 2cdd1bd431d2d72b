"""A lane: one topic as the relay sends to it, open and fenced against every older relay."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from postroom import errors, pulsar_adapter, wire
from postroom.cloud_events import SEQUENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from postroom.pulsar_adapter import Message
    from postroom.relay.sending.acknowledgements import OnStored
    from postroom.relay.sending.experience import Experience
    from postroom.relay.sending.outlet import Outlet
    from postroom.store.letter import Letter
    from postroom.topics import Topic

__all__ = ["BATCH_MESSAGES", "Lane"]

logger = logging.getLogger(__name__)

# Single messages leave in bursts, too, of which the last one's acknowledgement speaks for all: a
# third of what one for each would cost.
BURST_MESSAGES = 500
# One batch is under way at a time. Half of this leaves the broker waiting for the next one.
BATCH_MESSAGES = 1000
BATCH_BYTES = 256 << 10
# What a message's id, position and frame take beside its payload, key and headers.
MESSAGE_BESIDE = 96
ID, POSITION = wire.ID, wire.POSITION


@dataclass(slots=True)
class _Burst:
    """Messages that leave together: one batch, whose size may grow to `room`, or single ones.

    `size` is that of the batch, or of the largest message. A delayed message is alone; `delay` is
    in milliseconds.
    """

    room: int
    messages: list[Message] = field(default_factory=list)
    first_id: str = ""
    size: int = 0
    delay: int = 0


class Lane:
    """Sends letters to one topic, in the order given; open, and used by the term's thread alone.

    `floor` is the highest position that the broker may know from us.

    `reopened` makes an outlet that is batching or not: a Key_Shared subscription takes a batch's
    first key for all of it, so that a lane does without batches from its first key on, unless all
    who read the topic take several keys in one.
    """

    def __init__(
        self,
        topic: Topic,
        outlet: Outlet,
        *,
        shared: bool,
        floor: int,
        experience: Experience,
        reopened: Callable[..., Outlet],
    ) -> None:
        self.topic = topic
        self.shared = shared
        self.floor = floor
        # The highest position of this term.
        self.last = floor
        self.outlet = outlet
        self._experience = experience
        self._reopened = reopened
        self._builder = pulsar_adapter.message_builder()
        self._burst = _Burst(self._room())

    # --- queueing ----------------------------------------------------------------------------

    def queue(self, letter: Letter, position: int) -> None:
        """Put a letter behind all that were queued before, some of which may leave with that.

        This one stays, so that seal() has something to leave with.

        Raises:
            Poison: the broker takes no message that large.
            TermEnded: what left before it was not stored.

        """
        # For each event: what is looked up twice here is seen in the relay's rate.
        outlet = self.outlet
        if letter.key is not None and outlet.is_batching and not outlet.takes_keys:
            logger.info("Events on %s have keys: they are sent one by one from here", self.topic)
            self._reopen(batching=False)
            outlet = self.outlet
        size = letter.size + MESSAGE_BESIDE
        delay = _delay(letter) if letter.deliver_at else 0
        if size > outlet.proven or delay > outlet.proven_delay:
            self._require_taken(letter, size, delay)
        burst = self._burst
        messages = burst.messages
        if messages and self._is_cut_before(size, delay):
            self._leave(None)
            burst = self._burst
            messages = burst.messages
        if not messages:
            burst.first_id, burst.delay = letter.id, delay
        messages.append(_message(self._builder(), letter, position))
        self.last = position
        if outlet.is_batching:
            burst.size += size
        elif size > burst.size:
            burst.size = size

    def _is_cut_before(self, size: int, delay: int) -> bool:
        burst, outlet = self._burst, self.outlet
        # A delayed message overtakes an open batch, and deduplication would then drop that.
        most = outlet.batch_messages or BURST_MESSAGES
        if delay or burst.delay or len(burst.messages) >= most:
            return True
        if outlet.is_batching:
            return burst.size + size > burst.room
        # A message larger than any that the topic has taken leaves alone.
        return size > outlet.proven or burst.size > outlet.proven

    def _room(self) -> int:
        """Return how large the next batch may grow: at once to what the topic took before.

        Beyond that it doubles, so that a policy by which the broker refuses large ones is found
        with a batch that is not much too large.
        """
        known = self._experience.of(self.topic)
        return min(max(2 * self.outlet.proven, known.accepted), BATCH_BYTES, known.batch_limit)

    def _require_taken(self, letter: Letter, size: int, delay: int) -> None:
        if self._experience.of(self.topic).is_doubtful:
            reason = self._experience.verdict(self.topic, letter.id, size=size, delay=delay)
            if reason is not None:
                raise errors.Poison(reason)

    def let_batch(self, *, keys: bool) -> None:
        """Note whether events of several keys may share a batch from now on.

        Raises:
            TermEnded: what was sent before was not stored.

        """
        if keys and not self.outlet.is_batching:
            self._reopen(batching=True)
        self.outlet.takes_keys = keys

    def _reopen(self, *, batching: bool) -> None:
        if self._burst.messages:
            self._leave(None)
        self.outlet.wait()
        self.outlet.close()
        self.outlet = self._reopened(batching=batching)
        self._burst = _Burst(self._room())

    # --- leaving -----------------------------------------------------------------------------

    @property
    def is_queueing(self) -> bool:
        """Whether there is anything to seal."""
        return bool(self._burst.messages)

    @property
    def intent(self) -> tuple[Topic, Sequence[Message], int] | None:
        """What is to be noted before seal(), as Intents takes it.

        Nothing of what leaves alone or as one entry: some of other bursts may be stored, and some
        before that refused.
        """
        burst, outlet = self._burst, self.outlet
        if burst.size > outlet.proven or burst.delay or outlet.is_batching:
            return None
        return self.topic, burst.messages, self.last

    def seal(self, on_stored: OnStored) -> None:
        """Send what is queued, and have `on_stored` called when all up to it is stored.

        Raises:
            TermEnded: it was not, or something before it.

        """
        self._leave(on_stored)

    def _leave(self, on_stored: OnStored | None) -> None:
        burst, outlet = self._burst, self.outlet
        is_new = burst.size > outlet.proven
        if (intent := self.intent) is not None:
            self._experience.intents.handing(*intent)
        try:
            outlet.hand_over(
                burst.messages, size=burst.size, delay=burst.delay, on_stored=on_stored
            )
        except errors.Refused as refused:
            raise self._noted(refused) from refused
        if is_new:
            self._experience.note_accepted(self.topic, burst.size)
        self._burst = _Burst(self._room())

    def _noted(self, refused: errors.Refused) -> errors.Refused:
        burst, count = self._burst, len(self._burst.messages)
        self._experience.note_refused(
            self.topic, burst.first_id, count, burst.size, too_large=refused.too_large
        )
        what = f"Row {burst.first_id}" if count == 1 else f"A batch of {count} events"
        met = "is larger than anything it takes" if refused.too_large else "met a closed connection"
        return errors.Refused(
            f"{what}, of about {burst.size} bytes, is not stored on {self.topic}: sent alone, it "
            f"{met}. A policy of the topic or the broker may refuse it, by size for instance "
            "(maxMessageSize). Nothing is sent behind it; a new term tries again",
            too_large=refused.too_large,
        )


def _delay(letter: Letter) -> int:
    return max(1, letter.deliver_at - time.time_ns() // 1_000_000)


def _message(builder: Any, letter: Letter, position: int) -> Message:
    row_id, _, payload, key, occurred_at, deliver_at, headers, _ = letter
    builder.content(payload)
    builder.property(ID, row_id)
    builder.property(POSITION, str(position))
    builder.sequence_id(position)
    if headers:
        for name, value in headers.items():
            builder.property(name, value)
        if "ce_id" in headers:
            builder.property(SEQUENCE, str(position))
    if key is not None:
        builder.partition_key(key)
    if occurred_at > 0:
        builder.event_timestamp(occurred_at)
    if deliver_at > 0:
        builder.deliver_at(deliver_at)
    return builder.build()
