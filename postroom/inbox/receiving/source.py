"""Source: one topic, or topic partition, as a subscription reads it."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from postroom import broker, tracing

if TYPE_CHECKING:
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


class Source:
    """A consumer that may be closed and opened again while its messages are held.

    It is Key_Shared, or one of a Failover subscription: then it receives while no consumer comes
    before it in the broker's order. One thread at a time opens and closes it; the dispatcher's
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
        self._queue_size = 1
        self._lost_permits = 0
        self._interrupted = False
        self._ready = threading.Event()
        self._times = _Times()

    def look(self) -> Condition:
        """Say how it is, as far as is known; for the one thread that keeps it."""
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
        starved = self._lost_permits > 0 and self._lost_permits >= self._queue_size // 2
        quiet = time.monotonic() - self._times.received > QUIET_SECONDS
        return starved and quiet and self._feed.has_room

    def open(self, client: pulsar.Client, *, queue_size: int, own_thread: bool) -> None:
        """Subscribe, from the topic's beginning where the subscription is new.

        It receives in a thread of its own, or in the one that the client has for all that have
        none, which costs twice the processor's time.

        Raises:
            pulsar.PulsarException: what the broker answered.

        """
        import pulsar

        self.close()
        self._queue_size, self._lost_permits, self._interrupted = queue_size, 0, False
        self._times.asked = None
        self._ready.clear()
        consumer = client.subscribe(
            self.topic,
            self.subscription,
            consumer_type=self._consumer_type(),
            consumer_name=f"{socket.gethostname()}-{os.getpid()}",
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=queue_size,
            message_listener=None if own_thread else self._on_message,
            # By default an encrypted message is kept in the client, and its room with it.
            crypto_failure_action=pulsar.ConsumerCryptoFailureAction.CONSUME,
        )
        self._consumer = consumer
        self._ready.set()
        if own_thread:
            name = f"consumer-{self.topic.rpartition('/')[2]}"
            threading.Thread(
                target=tracing.silently(self._receive), args=(consumer,), name=name, daemon=True
            ).start()

    def _consumer_type(self) -> pulsar.ConsumerType:
        import pulsar

        kinds = pulsar.ConsumerType
        return kinds.Failover if self._kind == "failover" else kinds.KeyShared

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

    def _receive(self, consumer: pulsar.Consumer) -> None:
        import pulsar

        while self._reads_by(consumer):
            self._times.asked = time.monotonic()
            try:
                message = consumer.receive(timeout_millis=RECEIVE_MILLISECONDS)
            except pulsar.Timeout:
                continue
            except pulsar.PulsarException as error:
                logger.debug("Receiving from %s ended: %s", self.topic, error)
                self._interrupted = self._reads_by(consumer)
                return
            finally:
                if self._reads_by(consumer):
                    self._times.asked = None
            self._on_message(consumer, message)

    def _reads_by(self, consumer: pulsar.Consumer) -> bool:
        return self._consumer is consumer

    def _on_message(self, _: pulsar.Consumer, message: pulsar.Message) -> None:
        # The client may hand out the first messages before it has returned the consumer.
        if not self._ready.is_set():
            self._ready.wait(READY_SECONDS)
        self._times.received = time.monotonic()
        sealed = message.encryption_context()
        if sealed is not None:
            self._lost_permits += max(0, sealed.batch_size() - 1)
        self._feed.take(self, message)
