"""The relay's own cursors: a subscription on each topic, so that no tail is deleted unread."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from postroom import restraints, tracing
from postroom.access.client import access_of
from postroom.refusals import why

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    import pulsar

    from postroom.relay.sending.experience import Experience
    from postroom.store.values import Mark
    from postroom.topics import Topic

__all__ = ["Cursors"]

logger = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
# What a topic keeps for longer than it has to: this part of the time.
STEPS = 60


class Cursors:
    """Moves the relay's own cursors behind the checkpoint; start() and stop() around a term.

    Pulsar deletes what all subscriptions have acknowledged, unless the namespace has retention. A
    term that takes over has to read what was sent since the checkpoint, and a scan after lost
    history what was sent in the time before it, twice the history margin: so a durable subscription
    stands that far behind each topic's mark. It is connected for the whole term, since one
    without consumers may expire; it receives nothing. It is of the type Failover: a relay that was
    replaced may be connected still, and its marks are older. Where a subscription cannot be had, or
    a backlog quota is used up, the relay goes on without it, and says so.

    moved() is safe from any thread, all else is for the term's.
    """

    def __init__(
        self,
        client: pulsar.Client,
        *,
        subscription: str,
        is_needed: bool,
        keep: timedelta,
        experience: Experience,
    ) -> None:
        self._client = client
        self._subscription = subscription
        self._is_needed = is_needed
        self._experience = experience
        self._consumers: dict[Topic, pulsar.Consumer] = {}
        self._passed = _Passed(keep.total_seconds())
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to move cursors, in a thread of its own."""
        if self._is_needed:
            threading.Thread(
                target=tracing.silently(self._work), name="relay-cursors", daemon=True
            ).start()

    def stop(self) -> None:
        """Move what is to be moved, and have the thread end; the client closes what is open."""
        self._stopping.set()
        self._move_all()

    def moved(self, marks: Mapping[Topic, Mark]) -> None:
        """Note up to where the checkpoint speaks for topics by now."""
        with self._lock:
            self._passed.note(marks)

    def are_unknown(self, topic: Topic) -> bool:
        """Say whether no relay of this outbox partition is known to have sent anything to a topic.

        It would have left its subscription, so this is asked before ours is made, and where that is
        to be expected: all that others sent there is not read back then.
        """
        return restraints.lacks_subscription(self._experience.admin, topic, self._subscription)

    def follow(self, topic: Topic, mark: Mark | None, *, shared: bool) -> None:
        """Have a topic keep all behind a mark, unless it is one that others send to as well."""
        if shared:
            self.remove(topic)
        else:
            self.hold(topic, mark)

    def hold(self, topic: Topic, mark: Mark | None) -> None:
        """Have a topic keep all behind a mark, None for its beginning, from now on."""
        import pulsar

        known = self._experience.of(topic)
        if not self._is_needed or known.has_no_cursor or topic in self._consumers:
            return
        try:
            consumer = self._subscribe(topic)
        except pulsar.PulsarException as error:
            reason = why(error, access_of(self._client))
            if known.no_cursor != reason:
                logger.warning(
                    "The relay cannot have its subscription %r on %s (%s): what all others have "
                    "acknowledged may be deleted there before a relay that takes over has seen it, "
                    "and is sent again then, unless the namespace has some retention. It is tried "
                    "again with the next term; `pulsar-admin topics create-subscription %s -s %s` "
                    "makes it",
                    self._subscription,
                    topic,
                    reason,
                    topic,
                    self._subscription,
                    extra={"action": "cursor", "topic": topic},
                )
            known.no_cursor = reason
        else:
            known.no_cursor = ""
            with self._lock:
                self._consumers[topic] = consumer
                if mark is not None:
                    self._passed.note({topic: mark})

    def give_up(self, topic: Topic, reason: str) -> bool:
        """Take the relay's subscription away, which a policy counts as well; say if that is news.

        It must not be what shuts a topic. It comes back with a term that begins ten minutes later.
        """
        import pulsar

        known = self._experience.of(topic)
        if not self._is_needed or known.has_no_cursor:
            return False
        with self._lock:
            consumer = self._consumers.pop(topic, None)
        try:
            (consumer or self._subscribe(topic)).unsubscribe()
        except pulsar.PulsarException:
            return False  # there is none, and there can be none
        known.give_up_cursor()
        logger.warning(
            "%s cannot be opened as it is (%s): the relay takes its own subscription %r away, "
            "which counts there, and goes on without it for now. What all others have acknowledged "
            "may be deleted before a relay that takes over has seen it, and is sent again then, "
            "unless the namespace has some retention",
            topic,
            reason,
            self._subscription,
            extra={"action": "cursor", "topic": topic},
        )
        return True

    def remove(self, topic: Topic) -> None:
        """Take the subscription away from a topic that has other producers since.

        It would keep what they send as well, however long no relay runs.
        """
        import pulsar

        if not self._is_needed:
            return
        with contextlib.suppress(pulsar.PulsarException):  # it is tried again with each term
            self._subscribe(topic).unsubscribe()

    def take_back(self, topic: Topic, mark: Mark | None) -> None:
        """Have the subscription again, which was not what shuts the topic."""
        self._experience.of(topic).want_cursor()
        self.hold(topic, mark)

    def _subscribe(self, topic: Topic) -> pulsar.Consumer:
        import pulsar

        return self._client.subscribe(
            topic,
            self._subscription,
            consumer_type=pulsar.ConsumerType.Failover,
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=0,
        )

    def _work(self) -> None:
        while not self._stopping.wait(EVERY_SECONDS):
            self._move_all()

    def _move_all(self) -> None:
        with self._lock:
            marks = self._passed.due()
            consumers = dict(self._consumers)
        for topic, mark in marks.items():
            if topic in consumers:
                self._move(topic, consumers[topic], mark)

    def _move(self, topic: Topic, consumer: pulsar.Consumer, mark: Mark) -> None:
        import pulsar

        try:
            consumer.acknowledge_cumulative(pulsar.MessageId.deserialize(mark))
        except pulsar.PulsarException as error:
            # The next mark moves it; should the connection be lost for good the term ends anyway.
            logger.debug("The relay's cursor on %s was not moved (%s)", topic, type(error).__name__)


class _Passed:
    """The marks that topics have passed, until it is so long ago that what is before them may go.

    A mark for each of some steps, so that a topic has no more of them than there are steps.
    """

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._latest: dict[Topic, Mark] = {}
        self._steps: dict[Topic, deque[tuple[float, Mark]]] = {}

    def note(self, marks: Mapping[Topic, Mark]) -> None:
        self._latest.update(marks)

    def due(self) -> dict[Topic, Mark]:
        """Return how far each topic that is due has to keep nothing, and forget that."""
        now = time.monotonic()
        for topic in list(self._latest):
            steps = self._steps.setdefault(topic, deque())
            if not steps or now - steps[-1][0] >= self._keep / STEPS:
                steps.append((now, self._latest.pop(topic)))
        found = {}
        for topic, steps in self._steps.items():
            while steps and now - steps[0][0] >= self._keep:
                found[topic] = steps.popleft()[1]
        return found
