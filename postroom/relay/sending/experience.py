"""Experience: what a relay has learnt of its topics, kept from term to term."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from postroom.relay.sending.audience import Audience
from postroom.relay.sending.intents import Intents
from postroom.relay.sending.unanswered import Unanswered

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.pulsar_admin import PulsarAdmin
    from postroom.topics import Topic

__all__ = ["Experience", "Known"]

# A connection may be lost by chance just when an event is under way alone.
REFUSED_ALONE_TIMES = 3
# A policy may have been lifted since.
BATCH_LIMIT_SECONDS = 600.0
TOO_LARGE_SECONDS = 10.0
NO_CURSOR_SECONDS = 600.0
# How far a message's real size may be from what a lane measures.
SLACK_BYTES = 256
NO_LIMIT = sys.maxsize


class Known:
    """What is known of one topic: the largest entry that it took, and the event it refused last."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = ""
        self.refused_size = 0
        self.times = 0
        # The event that was given up last: if it comes again, somebody has asked for that.
        self.judged = ""
        # How many times in succession nobody answered when it was to be opened.
        self.silence = 0
        # Why the relay could have no subscription of its own there, and until when it wants none.
        self.no_cursor = ""
        self._no_cursor_until = 0.0
        self._batch_limit = (NO_LIMIT, 0.0)
        self._too_large = (NO_LIMIT, 0.0)

    @property
    def batch_limit(self) -> int:
        """The size beyond which a batch was refused lately."""
        return _remembered(self._batch_limit, BATCH_LIMIT_SECONDS)

    @batch_limit.setter
    def batch_limit(self, size: int) -> None:
        self._batch_limit = (size, time.monotonic())

    @property
    def too_large(self) -> int:
        """The size from which on an event was refused for good lately."""
        return _remembered(self._too_large, TOO_LARGE_SECONDS)

    @too_large.setter
    def too_large(self, size: int) -> None:
        self._too_large = (size, time.monotonic())

    @property
    def has_no_cursor(self) -> bool:
        """Whether the relay goes without a subscription of its own there."""
        return time.monotonic() < self._no_cursor_until

    def give_up_cursor(self) -> None:
        """Go without one for a while."""
        self._no_cursor_until = time.monotonic() + NO_CURSOR_SECONDS

    def want_cursor(self) -> None:
        """Have one again."""
        self._no_cursor_until = 0.0

    @property
    def is_doubtful(self) -> bool:
        """Whether anything was refused that may be refused again."""
        return bool(self.times) or self.too_large != NO_LIMIT


def _remembered(noted: tuple[int, float], seconds: float) -> int:
    size, at = noted
    return size if time.monotonic() - at <= seconds else NO_LIMIT


class Experience:
    """Kept by the relay, used by its thread alone; sizes are as lanes measure entries.

    `largest` is what a message may take anywhere: the setting, or less where the client refused
    one for that. `is_well` says whether the broker stores anything at all beside a topic,
    `audience` where messages of different keys may share a batch, `intents` in which order rows
    were handed to topics, and `unanswered` for how long rows have waited for a function of the
    routing.
    """

    def __init__(
        self, *, largest: int, admin: PulsarAdmin, audience: Audience | None = None
    ) -> None:
        self.largest = largest
        self.audience = audience or Audience(lambda _: frozenset(), always=False, admin=admin)
        self.intents = Intents()
        self.unanswered = Unanswered()
        self.is_well: Callable[[Topic], bool] = _unknown
        self.admin = admin
        self._topics: dict[Topic, Known] = {}

    def of(self, topic: Topic) -> Known:
        """Return what is known of a topic."""
        return self._topics.setdefault(topic, Known())

    def make_if_absent(self, topic: Topic, partitions: int) -> None:
        """Have a topic made with so many topic partitions, where there is none and that is open."""
        self.admin.divide(topic, partitions)

    def note_accepted(self, topic: Topic, size: int) -> None:
        """Take note of an entry that is stored."""
        known = self.of(topic)
        known.accepted = max(known.accepted, size)
        known.refused, known.times = "", 0
        if size >= known.too_large:
            known.too_large = NO_LIMIT

    def note_refused(
        self, topic: Topic, row_id: str, count: int, size: int, *, too_large: bool
    ) -> None:
        """Take note of an entry that was not stored, of so many events from one on."""
        known = self.of(topic)
        if count > 1:
            known.batch_limit = size // 2
        elif too_large:
            self.largest = min(self.largest, size - 1)
        else:
            known.times = known.times + 1 if known.refused == row_id else 1
            known.refused, known.refused_size = row_id, size

    def verdict(self, topic: Topic, row_id: str, *, size: int, delay: int) -> str | None:
        """Return why a topic will never take an event, None where it may.

        The broker refuses by closing the connection, which happens for other reasons too. So an
        event is held to be refused for good where it was refused alone and a policy of the topic
        says why; or, where none can be read, once that has happened several times while smaller
        ones were taken there, or elsewhere in the namespace, and never one so large.
        """
        known = self.of(topic)
        is_refused = known.refused == row_id
        is_larger = size >= known.too_large and known.judged != row_id
        if not is_refused and not is_larger:
            return None
        reason = self._policy_against(topic, size, delay)
        if reason is None and is_larger and self.admin.largest_message(topic) is None:
            reason = f"The topic {topic} refused one of {known.too_large} bytes lately"
        elif reason is None and is_refused and self._is_final(topic, known):
            reason = (
                f"The topic {topic} refuses the event, of about {size} bytes: the connection was "
                f"lost {known.times} times while it was under way alone, and smaller ones are taken"
            )
        if reason is not None:
            if not delay:
                known.too_large = min(size, known.too_large)
            known.judged, known.refused, known.times = row_id, "", 0
        return reason

    def _policy_against(self, topic: Topic, size: int, delay: int) -> str | None:
        largest = self.admin.largest_message(topic)
        if largest and size > largest - SLACK_BYTES:
            return (
                f"The topic {topic} refuses the event, of about {size} bytes: its policy "
                f"maxMessageSize allows for {largest}"
            )
        longest = self.admin.longest_delay_ms(topic) if delay else None
        if longest and delay > longest - 1000:
            return (
                f"The topic {topic} refuses the event, which is to be delivered in {delay} ms: its "
                f"policy maxDeliveryDelayInMillis allows for {longest}"
            )
        return None

    def _is_final(self, topic: Topic, known: Known) -> bool:
        if known.times < REFUSED_ALONE_TIMES:
            return False
        if known.accepted:
            return known.accepted < known.refused_size
        return self.is_well(topic)


def _unknown(_: Topic) -> bool:
    return False
