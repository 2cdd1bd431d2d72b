"""Source: one topic, or topic partition, as a subscription reads it."""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from postroom import broker, tracing
from postroom.access.cache import Cache
from postroom.access.client import access_of
from postroom.inbox.receiving.directory import is_embedded
from postroom.inbox.receiving.succession import Succession
from postroom.inbox.scheduling.delivery import place_of

if TYPE_CHECKING:
    import pulsar

    from postroom.inbox.receiving.feed import Feed
    from postroom.inbox.scheduling.delivery import Place
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


@dataclass(slots=True, eq=False)
class _Reading:
    """A source from one opening to its close, and what its threads note of it meanwhile.

    So what an earlier one's do late is noted of that one. The receiving thread writes when a
    message came last (`received`), since when a call to receive has not come back, if one is
    (`asked`), and of how many messages that the broker may send ahead the client has `lost` count.
    Whether the connection was lost since (`interrupted`) writes whoever sees it: that one, or the
    one that looks. `consumer` is there once it is `ready`. Whoever opens it writes which message
    was the topic's `newest` then, or nothing where that is not known.
    """

    queue_size: int
    consumer: pulsar.Consumer | None = None
    succession: Succession | None = None
    ready: threading.Event = field(default_factory=threading.Event)
    received: float = 0.0
    asked: float | None = None
    lost: int = 0
    interrupted: bool = False
    newest: tuple[int, int] | None = None


class Source:
    """A consumer that may be closed and opened again while its messages are held.

    It is Key_Shared, or one of a Failover subscription: then it receives while no consumer comes
    before it in the broker's order, and passes on what its Succession admits. One thread at a time
    opens and closes it, while that of Sources looks at it and tends it; the dispatcher's
    acknowledges; the client's receives, or one of its own. What they note is its _Reading's. The
    broker delivers again what was not acknowledged before it was closed.
    """

    def __init__(
        self, topic: Topic, *, subscription: str, kind: SubscriptionType, feed: Feed
    ) -> None:
        self.topic = topic
        self.subscription = subscription
        self._kind = kind
        self._feed = feed
        self._reading: _Reading | None = None

    def look(self) -> Condition:
        """Say how it is, as far as is known; for the thread that looks after it."""
        reading = self._reading
        if reading is None or reading.consumer is None:
            return Condition.CLOSED
        if not reading.consumer.is_connected():
            reading.interrupted = True
            return Condition.AWAY
        asked = reading.asked
        if asked is not None and time.monotonic() - asked > HANG_SECONDS:
            return Condition.HANGS
        is_stale = reading.interrupted or self._is_stalled(reading)
        return Condition.STALE if is_stale else Condition.GOOD

    def _is_stalled(self, reading: _Reading) -> bool:
        # Of an encrypted batch that nobody can open the client counts one message, the broker all.
        starved = reading.lost > 0 and reading.lost >= reading.queue_size // 2
        quiet = time.monotonic() - reading.received > QUIET_SECONDS
        return starved and quiet and self._feed.has_room

    def tend(self) -> None:
        """Have a good source go on where the broker has left it standing."""
        succession = None if self._reading is None else self._reading.succession
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
        reading = _Reading(queue_size)
        if self._may_change_hands(client):
            reading.succession = Succession(functools.partial(_go_back, reading))
        on_message = functools.partial(self._on_message, reading)
        reading.consumer = client.subscribe(
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
        self._reading = reading
        reading.ready.set()
        if own_thread:
            name = f"consumer-{self.topic.rpartition('/')[2]}"
            threading.Thread(
                target=tracing.silently(self._receive),
                args=(reading, reading.consumer),
                name=name,
                daemon=True,
            ).start()
        if self._kind == "key_shared":
            reading.newest = _newest(reading.consumer)

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
        reading, self._reading = self._reading, None
        if reading is not None and reading.consumer is not None:
            broker.close(reading.consumer)

    def may_have_had(self, place: Place) -> bool:
        """Say whether a consumer that ended before this one was opened may have had what is there.

        Not what came to the topic afterwards. One of a Failover subscription may have been open
        for long when the one before it ends: there each may.
        """
        reading = self._reading
        newest = None if reading is None else reading.newest
        _, ledger, entry, _ = place
        return newest is None or (ledger, entry) <= newest

    def acknowledge(self, message: pulsar.Message) -> None:
        """Tell the broker that a message is done with, or let it come again if that cannot be."""
        import pulsar

        reading = self._reading
        if reading is None or reading.consumer is None:
            return
        try:
            reading.consumer.acknowledge(message)
        except pulsar.PulsarException as error:
            logger.debug("A message on %s comes again: %s", self.topic, error)

    def _receive(self, reading: _Reading, consumer: pulsar.Consumer) -> None:
        import pulsar

        while self._reading is reading:
            reading.asked = time.monotonic()
            try:
                message = consumer.receive(timeout_millis=RECEIVE_MILLISECONDS)
            except pulsar.Timeout:
                continue
            except pulsar.PulsarException as error:
                logger.debug("Receiving from %s ended: %s", self.topic, error)
                reading.interrupted = True
                return
            finally:
                reading.asked = None
            self._on_message(reading, consumer, message)

    def _on_message(self, reading: _Reading, _: pulsar.Consumer, message: pulsar.Message) -> None:
        # The client may hand out the first messages before it has returned the consumer.
        if not reading.ready.is_set():
            reading.ready.wait(READY_SECONDS)
        reading.received = time.monotonic()
        succession = reading.succession
        # The client drops a message in chunks of which it had a half, and hands on what is behind
        # it. All of it is delivered again to the consumer that is opened instead.
        if succession is not None and reading.interrupted:
            return
        sealed = message.encryption_context()
        if sealed is not None:
            reading.lost += max(0, sealed.batch_size() - 1)
        # One that nobody can open is a dead letter, whatever came before it. It would not be
        # delivered again: of its batch the broker counts more permits than it gets back.
        if succession is None or succession.admits(place_of(message)) or sealed is not None:
            self._feed.take(self, message)


def _newest(consumer: pulsar.Consumer) -> tuple[int, int] | None:
    """Return ledger and entry of the topic's last message, if the broker says so."""
    import pulsar

    try:
        last = consumer.get_last_message_id()
    except pulsar.PulsarException:
        return None
    return last.ledger_id(), last.entry_id()


def _go_back(reading: _Reading) -> None:
    if reading.consumer is not None:
        reading.consumer.redeliver_unacknowledged_messages()
