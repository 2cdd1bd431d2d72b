"""Source: one topic, or topic partition, as a subscription reads it."""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from postroom import broker, tracing
from postroom.access.cache import Cache
from postroom.access.client import access_of
from postroom.inbox.receiving.directory import is_embedded
from postroom.inbox.receiving.succession import Succession
from postroom.inbox.scheduling.delivery import place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import pulsar

    from postroom.inbox.receiving.feed import Feed
    from postroom.settings import SubscriptionType
    from postroom.topics import Topic

__all__ = ["Condition", "Source"]

logger = logging.getLogger(__name__)

QUIET_SECONDS = 1.0
# A receive that is to last for a moment, and does not end at all, keeps its topic from being read.
HANG_SECONDS = 10.0
RECEIVE_MILLISECONDS = 1000
READY_SECONDS = 10.0
LOOK_SECONDS = 2.0


_embedded: Cache[bool] = Cache(seconds=60.0)


class Condition(Enum):
    """How a source is."""

    GOOD = "connected since it was opened"
    AWAY = "the connection is lost, and the client tries to connect again"
    STALE = (
        "connected, and to be opened again: a client that lost its connection goes on with the "
        "halves of chunked messages that it had, and drops the chunks that come again"
    )
    HANGS = "a receive does not come back, though it is told to within a moment"
    CLOSED = "not subscribed"


@dataclass(slots=True)
class _Times:
    """When a message came last, and since when a call to receive has not come back, if one is."""

    received: float = 0.0
    asked: float | None = None


@dataclass(slots=True)
class _Permits:
    """What the broker may send ahead, and how much of that the client has lost count of."""

    queue_size: int = 1
    lost: int = 0


class Source:
    """A consumer that may be closed and opened again while its messages are held.

    It is Key_Shared, or one of a Failover subscription: then it receives while no consumer comes
    before it in the broker's order, and passes on what its Succession admits. One thread at a time
    opens and closes it, while that of Sources looks at it and tends it; the dispatcher's
    acknowledges; the client's receives, or one of its own. The broker delivers again what was not
    acknowledged before it was closed.
    """

    def __init__(
        self, topic: Topic, *, subscription: str, kind: SubscriptionType, feed: Feed
    ) -> None:
        self.topic = topic
        self.subscription = subscription
        self._kind = kind
        self._feed = feed
        self._consumer: pulsar.Consumer | None = None
        self._permits = _Permits()
        self._succession: Succession | None = None
        # Set by whoever sees the connection lost, the thread that looks or the one that receives,
        # and taken back by the one that opens.
        self._interrupted = False
        self._ready = threading.Event()
        self._times = _Times()

    def look(self) -> Condition:
        """Say how it is, as far as is known; for the thread that looks after it."""
        consumer = self._consumer
        if consumer is None:
            return Condition.CLOSED
        if not consumer.is_connected():
            self._interrupted = True
            return Condition.AWAY
        asked = self._times.asked
        if asked is not None and time.monotonic() - asked > HANG_SECONDS:
            return Condition.HANGS
        return Condition.STALE if self._interrupted or self._is_stalled else Condition.GOOD

    @property
    def _is_stalled(self) -> bool:
        # Of an encrypted batch that nobody can open the client counts one message, the broker all.
        starved = self._permits.lost > 0 and self._permits.lost >= self._permits.queue_size // 2
        quiet = time.monotonic() - self._times.received > QUIET_SECONDS
        return starved and quiet and self._feed.has_room

    def tend(self) -> None:
        """Have a good source go on where the broker has left it standing."""
        succession = self._succession
        if succession is not None and (succession.is_waiting or self._feed.has_room):
            succession.tend()

    def open(self, client: pulsar.Client, *, queue_size: int, own_thread: bool) -> None:
        """Subscribe, from the topic's beginning where the subscription is new.

        It receives in a thread of its own, or in the one that the client has for all that have
        none, which costs twice the processor's time.

        Raises:
            pulsar.PulsarException: what the broker answered.

        """
        import pulsar

        self.close()
        self._permits, self._interrupted = _Permits(queue_size), False
        self._times.asked = None
        self._ready.clear()
        succession = Succession(self._go_back) if self._may_change_hands(client) else None
        on_message = functools.partial(self._on_message, succession)
        consumer = client.subscribe(
            self.topic,
            self.subscription,
            consumer_type=self._consumer_type(),
            consumer_name=f"{socket.gethostname()}-{os.getpid()}",
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=queue_size,
            message_listener=None if own_thread else on_message,
            # By default an encrypted message is kept in the client, and its room with it.
            crypto_failure_action=pulsar.ConsumerCryptoFailureAction.CONSUME,
        )
        self._consumer, self._succession = consumer, succession
        self._ready.set()
        if own_thread:
            name = f"consumer-{self.topic.rpartition('/')[2]}"
            threading.Thread(
                target=tracing.silently(self._receive),
                args=(consumer, on_message),
                name=name,
                daemon=True,
            ).start()

    def _consumer_type(self) -> pulsar.ConsumerType:
        import pulsar

        kinds = pulsar.ConsumerType
        return kinds.Failover if self._kind == "failover" else kinds.KeyShared

    def _may_change_hands(self, client: pulsar.Client) -> bool:
        # The embedded broker serves one worker, and does not go back when it is asked to.
        if self._kind != "failover":
            return False
        access = access_of(client)
        return not _embedded.of(access, lambda: is_embedded(access, timeout_seconds=LOOK_SECONDS))

    def close(self) -> None:
        """Hand back what was not acknowledged."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            broker.close(consumer)

    def acknowledge(self, message: pulsar.Message) -> None:
        """Tell the broker that a message is done with, or let it come again if that cannot be."""
        import pulsar

        consumer = self._consumer
        if consumer is None:
            return
        try:
            consumer.acknowledge(message)
        except pulsar.PulsarException as error:
            logger.debug("A message on %s comes again: %s", self.topic, error)

    def _receive(
        self,
        consumer: pulsar.Consumer,
        on_message: Callable[[pulsar.Consumer, pulsar.Message], None],
    ) -> None:
        import pulsar

        while self._reads_by(consumer):
            self._times.asked = time.monotonic()
            try:
                message = consumer.receive(timeout_millis=RECEIVE_MILLISECONDS)
            except pulsar.Timeout:
                continue
            except pulsar.PulsarException as error:
                logger.debug("Receiving from %s ended: %s", self.topic, error)
                if self._reads_by(consumer):
                    self._interrupted = True
                return
            finally:
                if self._reads_by(consumer):
                    self._times.asked = None
            on_message(consumer, message)

    def _reads_by(self, consumer: pulsar.Consumer) -> bool:
        return self._consumer is consumer

    def _on_message(
        self, succession: Succession | None, _: pulsar.Consumer, message: pulsar.Message
    ) -> None:
        # The client may hand out the first messages before it has returned the consumer.
        if not self._ready.is_set():
            self._ready.wait(READY_SECONDS)
        self._times.received = time.monotonic()
        # The client drops a message in chunks of which it had a half, and hands on what is behind
        # it. All of it is delivered again to the consumer that is opened instead.
        if succession is not None and self._interrupted:
            return
        sealed = message.encryption_context()
        if sealed is not None:
            self._permits.lost += max(0, sealed.batch_size() - 1)
        # One that nobody can open is a dead letter, whatever came before it. It would not be
        # delivered again: of its batch the broker counts more permits than it gets back.
        if succession is None or succession.admits(place_of(message)) or sealed is not None:
            self._feed.take(self, message)

    def _go_back(self) -> None:
        consumer = self._consumer
        if consumer is not None:
            consumer.redeliver_unacknowledged_messages()
