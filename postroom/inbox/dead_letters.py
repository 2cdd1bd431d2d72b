"""Dead letters: events that were given up, kept with the reason, and put back on demand."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from postroom import broker, errors, events, wire
from postroom.inbox.delivery import place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pulsar

    from postroom.inbox.delivery import Delivery, Failures
    from postroom.inbox.handlers import Handler
    from postroom.settings import Settings

__all__ = ["DeadLetter", "DeadLetters", "Redriven", "list_dead", "redrive", "redrive_topic"]

logger = logging.getLogger(__name__)

SUBSCRIPTION = "dead-letters"
# How long the dead-letter topic may say nothing before its end is taken as reached.
QUIET_SECONDS = 2.0
LONGEST_REASON = 1000
LATEST_TIMESTAMP = 1 << 62


def redrive_topic(topic: str, subscription: str) -> str:
    """Name the topic through which a topic's dead letters come back to a subscription.

    A topic of its own: the relay's fenced producers own the original one, and other subscriptions
    of it have handled the event long since.
    """
    return f"{broker.base_topic(broker.canonical(topic))}-{subscription}{wire.REDRIVE}"


def pattern_of(topic: str) -> str:
    """Return the pattern of the full names that a `re:` topic stands for.

    Dead letters and what comes back of them are left out: a subscription that read its own dead
    letters would make dead letters of them for ever.
    """
    namespace, local = _split(topic)
    return f"{namespace}/(?!.*(?:{wire.DEAD}|{wire.REDRIVE})$)(?:{local})"


def redrive_pattern(topic: str, subscription: str) -> str:
    """Return the pattern of the redrive topics of all topics that a `re:` topic stands for."""
    namespace, local = _split(topic)
    return f"{namespace}/(?:{local})-{re.escape(subscription)}{wire.REDRIVE}"


def _split(topic: str) -> tuple[str, str]:
    # tenant and namespace are literal; only the topic's own name is a pattern.
    tenant, namespace, local = (
        topic.removeprefix("re:").removeprefix("persistent://").split("/", maxsplit=2)
    )
    return broker.canonical(f"{tenant}/{namespace}"), local


class DeadLetters:
    """Sends given-up deliveries of one subscription to their dead-letter topics.

    The message keeps payload, key and properties; reason, handler, attempts and times are added.
    Before the first one on a topic its subscription is made, so that nothing sent there vanishes.
    Not thread-safe.
    """

    def __init__(self, client: pulsar.Client, settings: Settings, *, subscription: str) -> None:
        self._client = client
        self._settings = settings
        self._subscription = subscription
        self._producers: dict[str, pulsar.Producer] = {}

    def prepare(self, topic: str) -> None:
        """Make ready for the dead letters of a topic."""
        self._producer(topic)

    def park(
        self,
        delivery: Delivery,
        *,
        reason: str,
        handler: Handler | None,
        failures: Failures,
        stored: Callable[[bool], None],
    ) -> None:
        """Send a delivery away; `stored` is told, in the client's thread, whether it arrived."""
        ours = {
            wire.ID: delivery.event_id,
            wire.DEAD_TOPIC: delivery.origin,
            wire.DEAD_SUBSCRIPTION: self._subscription,
            wire.DEAD_MESSAGE_ID: ":".join(map(str, delivery.place[1:])),
            wire.DEAD_HANDLER: handler.name if handler else delivery.only_for or "",
            wire.DEAD_REASON: _sendable(reason)[:LONGEST_REASON],
            wire.DEAD_ATTEMPTS: str(failures.attempts),
            wire.DEAD_FIRST_FAILURE: str(failures.first or ""),
            wire.DEAD_LAST_FAILURE: str(failures.last or ""),
        }
        theirs = {k: v for k, v in delivery.properties.items() if k != wire.REDRIVE_HANDLER}
        self._send(delivery, {**theirs, **ours}, stored)

    def _send(
        self, delivery: Delivery, properties: dict[str, str], stored: Callable[[bool], None]
    ) -> None:
        import pulsar

        at = delivery.message.event_timestamp()
        self._producer(delivery.origin).send_async(
            delivery.message.data(),
            lambda result, _: stored(result == pulsar.Result.Ok),
            properties=properties,
            partition_key=delivery.key,
            event_timestamp=at if 0 < at < LATEST_TIMESTAMP else None,
        )

    def _producer(self, topic: str) -> pulsar.Producer:
        found = self._producers.get(topic)
        if found is None:
            dead = self._settings.dead_letters_of(topic, self._subscription)
            broker.ensure_subscription(self._client, dead, SUBSCRIPTION)
            found = self._producers[topic] = self._client.create_producer(
                dead,
                send_timeout_millis=round(self._settings.send_timeout_seconds * 1000),
                block_if_queue_full=True,
                max_pending_messages=200,
                # What came in compressed or in chunks may be larger than one message can be.
                chunking_enabled=True,
            )
        return found


def _sendable(text: str) -> str:
    # File names that are no UTF-8 come as lone surrogates.
    return text.encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter as it is listed: everything but its data."""

    id: str
    name: str | None
    topic: str
    key: str | None
    subscription: str
    handler: str
    reason: str
    attempts: int
    first_failure: str
    last_failure: str

    @classmethod
    def of(cls, message: pulsar.Message) -> DeadLetter:
        """Read the properties that DeadLetters.park() has written, or a stranger's none."""
        found = message.properties()
        return cls(
            id=found.get(wire.ID) or ":".join(map(str, place_of(message))),
            name=_name_in(message.data()),
            topic=found.get(wire.DEAD_TOPIC, ""),
            key=message.partition_key() or None,
            subscription=found.get(wire.DEAD_SUBSCRIPTION, ""),
            handler=found.get(wire.DEAD_HANDLER, ""),
            reason=found.get(wire.DEAD_REASON, ""),
            attempts=int(found.get(wire.DEAD_ATTEMPTS, "") or 0),
            first_failure=found.get(wire.DEAD_FIRST_FAILURE, ""),
            last_failure=found.get(wire.DEAD_LAST_FAILURE, ""),
        )


def _name_in(payload: bytes) -> str | None:
    try:
        return events.decode(payload)[0]
    except errors.InvalidEvent:
        return None


@dataclass(slots=True, kw_only=True)
class Redriven:
    """How many dead letters a redrive put back, and how many it left."""

    put_back: int = 0
    left: int = 0


def list_dead(
    settings: Settings, *, topic: str | None = None, subscription: str | None = None
) -> Iterator[DeadLetter]:
    """Yield the dead letters that wait on a topic's subscription, oldest first; changes nothing.

    Raises:
        pulsar.ConsumerBusy: another listing or redrive of the same dead letters is under way.

    """
    with _opened(settings, topic, subscription) as (_, consumer):
        for message in _to_the_end(consumer):
            yield DeadLetter.of(message)


def redrive(
    settings: Settings,
    *,
    topic: str | None = None,
    subscription: str | None = None,
    where: Callable[[DeadLetter], bool] = lambda _: True,
    rate_per_second: float | None = None,
) -> Redriven:
    """Put dead letters back for the handler that failed, those for which `where` says yes.

    Each is sent to the redrive topic of where it came from first and acknowledged then: a crash in
    between sends it again, which the inbox recognises; so does a redrive that is run twice. What
    fails again becomes a dead letter again. Order against newer events of the same key is not kept.
    Letters of other subscriptions, where several share a dead-letter topic, are left.

    Raises:
        pulsar.ConsumerBusy: another listing or redrive of the same dead letters is under way.

    """
    topic = broker.canonical(topic or settings.topic)
    subscription = subscription or settings.subscription
    done = Redriven()
    with _opened(settings, topic, subscription) as (client, consumer):
        back = _WayBack(client, subscription)
        for message in _to_the_end(consumer):
            letter = DeadLetter.of(message)
            if letter.subscription not in ("", subscription) or not where(letter):
                done.left += 1
                continue
            back.send(message, letter, letter.topic or topic)
            consumer.acknowledge(message)
            done.put_back += 1
            if rate_per_second:
                time.sleep(1 / rate_per_second)
    return done


class _WayBack:
    """Sends letters to the redrive topics of a subscription, whose consumers read them there."""

    def __init__(self, client: pulsar.Client, subscription: str) -> None:
        self._client = client
        self._subscription = subscription
        self._producers: dict[str, pulsar.Producer] = {}

    def send(self, message: pulsar.Message, letter: DeadLetter, topic: str) -> None:
        properties = {
            name: value
            for name, value in message.properties().items()
            if not name.startswith("dead-letter-")
        }
        properties[wire.DEAD_TOPIC] = topic
        properties[wire.REDRIVE_HANDLER] = letter.handler
        self._producer(redrive_topic(topic, self._subscription)).send(
            message.data(),
            properties=properties,
            partition_key=message.partition_key() or None,
            event_timestamp=message.event_timestamp() or None,
        )

    def _producer(self, topic: str) -> pulsar.Producer:
        import pulsar

        if topic not in self._producers:
            with contextlib.suppress(pulsar.Timeout):  # the embedded broker's way to say it exists
                broker.ensure_subscription(self._client, topic, self._subscription)
            self._producers[topic] = self._client.create_producer(topic, chunking_enabled=True)
        return self._producers[topic]


class _opened:  # noqa: N801 - a context manager
    def __init__(self, settings: Settings, topic: str | None, subscription: str | None) -> None:
        self._settings = settings
        self._topic = settings.dead_letters_of(
            broker.canonical(topic or settings.topic), subscription or settings.subscription
        )

    def __enter__(self) -> tuple[pulsar.Client, pulsar.Consumer]:
        import pulsar

        self._client = broker.connect(
            self._settings.pulsar_url, operation_timeout=timedelta(seconds=10)
        )
        try:
            consumer = self._client.subscribe(
                self._topic,
                SUBSCRIPTION,
                consumer_type=pulsar.ConsumerType.Exclusive,
                initial_position=pulsar.InitialPosition.Earliest,
                receiver_queue_size=100,
            )
        except BaseException:
            broker.close(self._client)
            raise
        return self._client, consumer

    def __exit__(self, *exc: object) -> None:
        broker.close(self._client)


def _to_the_end(consumer: pulsar.Consumer) -> Iterator[pulsar.Message]:
    # What arrives after the beginning is not looked at: a redriven event that fails again would
    # come round for ever.
    import pulsar

    began = time.time() * 1000
    while True:
        try:
            message = consumer.receive(timeout_millis=round(QUIET_SECONDS * 1000))
        except pulsar.Timeout:
            return
        if message.publish_timestamp() > began:
            return
        yield message
