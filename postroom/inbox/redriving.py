"""Redriving: dead letters are listed, and put back for the handler that failed."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from postroom import broker, wire
from postroom.access import pulsar as pulsar_access
from postroom.inbox.letters import SUBSCRIPTION, DeadLetter
from postroom.inbox.selection import redrive_topic
from postroom.topics import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pulsar

    from postroom.settings import Settings

__all__ = ["Redriven", "list_dead", "redrive"]

# How long the dead-letter topic may say nothing before its end is taken as reached.
QUIET_SECONDS = 2.0


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
    topic = canonical(topic or settings.topic)
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
            ordering_key=message.ordering_key() or None,
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
            canonical(topic or settings.topic), subscription or settings.subscription
        )

    def __enter__(self) -> tuple[pulsar.Client, pulsar.Consumer]:
        import pulsar

        self._client = broker.connect(
            pulsar_access.of(self._settings), operation_timeout=timedelta(seconds=10)
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
