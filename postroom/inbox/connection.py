"""Connection: one life of a subscription's client, feeds and dispatcher."""

from __future__ import annotations

import logging
import os
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom import topics
from postroom.inbox import facts
from postroom.inbox.admission import Admission
from postroom.inbox.dead_letters import DeadLetters
from postroom.inbox.dispatcher import Dispatcher
from postroom.inbox.feed import Feed
from postroom.inbox.intake import Intake
from postroom.inbox.mailbox import Mailbox, Woken
from postroom.inbox.parking import Parking
from postroom.inbox.selection import pattern_of, redrive_pattern, redrive_topic
from postroom.inbox.underway import Underway

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    import pulsar

    from postroom.inbox.facts import Teller
    from postroom.inbox.handlers import Registry
    from postroom.inbox.underway import Runner
    from postroom.settings import Settings

__all__ = ["Connection", "Reading"]

logger = logging.getLogger(__name__)

# Messages that the client's library may hold besides: it does not bound their size.
RECEIVER_QUEUE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What all connections of one subscription have in common: what is read, and by whom handled.

    `topics` are names, or patterns that begin with `re:`. Up to `most_submitted` jobs are with the
    runner.
    """

    settings: Settings
    registry: Registry
    subscription: str
    topics: Sequence[str]
    runner: Runner
    most_submitted: int


class Connection:
    """Consumes through one client until it is told to stop, or an error ends it."""

    def __init__(self, client: pulsar.Client, reading: Reading, *, tell: Teller) -> None:
        self._client = client
        self._reading = reading
        self._tell = tell
        self._mailbox = Mailbox()
        admission = Admission(reading.settings.prefetch)
        self._dispatcher = self._made(admission)
        self._feeds = [
            Feed(self._subscribe(wanted), self._mailbox, admission) for wanted in self._wanted()
        ]

    def _made(self, admission: Admission) -> Dispatcher:
        reading, settings = self._reading, self._reading.settings
        return Dispatcher(
            intake=Intake(
                reading.registry,
                subscription=reading.subscription,
                strict=settings.strict,
                noted=settings.prefetch,
            ),
            mailbox=self._mailbox,
            admission=admission,
            underway=Underway(reading.runner, self._mailbox, settings, most=reading.most_submitted),
            parking=Parking(self._dead_letters(), self._mailbox),
            tell=self._tell,
        )

    def run(self, stopping: threading.Event) -> None:
        """Consume until `stopping` is set, then let running handlers finish."""
        for feed in self._feeds:
            feed.start()
        logger.info(
            "Consuming %s as %r",
            ", ".join(self._reading.topics),
            self._reading.subscription,
            extra={"action": "consuming"},
        )
        self._tell(facts.StateEntered, state="consuming")
        try:
            while not stopping.is_set():
                self._dispatcher.step()
        finally:
            self._drain()

    def wake(self) -> None:
        """Have a run() that waits look at `stopping`; safe from any thread."""
        self._mailbox.post(Woken())

    def _dead_letters(self) -> DeadLetters:
        reading = self._reading
        found = DeadLetters(self._client, reading.settings, subscription=reading.subscription)
        for topic in reading.topics:
            if not topic.startswith("re:"):
                found.prepare(topics.canonical(topic))
        return found

    def _wanted(self) -> list[Any]:
        # Patterns cannot be subscribed to together with names, nor with each other.
        subscription = self._reading.subscription
        names: list[str] = []
        wanted: list[Any] = []
        for topic in self._reading.topics:
            if topic.startswith("re:"):
                wanted.append(re.compile(pattern_of(topic)))
                wanted.append(re.compile(redrive_pattern(topic, subscription)))
            else:
                names += [topics.canonical(topic), redrive_topic(topic, subscription)]
        return [*wanted, names] if names else wanted

    def _subscribe(self, wanted: Any) -> pulsar.Consumer:
        import pulsar

        prefetch = self._reading.settings.prefetch
        return self._client.subscribe(
            wanted,
            self._reading.subscription,
            consumer_type=pulsar.ConsumerType.KeyShared,
            consumer_name=f"{socket.gethostname()}-{os.getpid()}",
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=min(RECEIVER_QUEUE, prefetch),
            max_total_receiver_queue_size_across_partitions=prefetch,
        )

    def _drain(self) -> None:
        # Handlers that run finish and are acknowledged; only then is the rest handed back, since
        # another worker would otherwise get later events of a key that is still at work here.
        seconds = self._reading.settings.shutdown_seconds
        self._tell(facts.StateEntered, state="draining")
        for feed in self._feeds:
            feed.stop()
        try:
            unfinished = self._dispatcher.drain(seconds)
        finally:
            for feed in self._feeds:
                feed.close()
        if unfinished:
            logger.warning(
                "%d handlers did not finish within %g s; their events are delivered again",
                unfinished,
                seconds,
            )
