"""Mail: the producers and consumers of one test, and how much is on its way."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from postroom import wire
from postroom.inbox.scheduling.delivery import Delivery
from postroom.store import letter

if TYPE_CHECKING:
    import pulsar

    from postroom.events import Event
    from postroom.inbox.scheduling.delivery import Place
    from postroom.settings import Settings
    from postroom.store.codec import Row
    from postroom.store.letter import Letter
    from postroom.testing.wired import Wiring

__all__ = ["Mail"]

RECEIVE_MS = 100


class Mail:
    """Sends rows as a relay does, and receives them as a consumer does; one thread at a time."""

    def __init__(self, client: pulsar.Client, wiring: Wiring, settings: Settings) -> None:
        self._client = client
        self._wiring = wiring
        self._settings = settings
        self._envelopes = settings.envelopes
        self._producers: dict[str, pulsar.Producer] = {}
        self._consumers: dict[tuple[str, str], pulsar.Consumer] = {}
        self._sent: dict[str, int] = {}
        self._received: dict[tuple[str, str], int] = {}

    def send(self, row: Row) -> Letter:
        """Send a row of the outbox to its topic.

        Raises:
            Poison: it can never be sent.

        """
        made = letter.write(row, self._wiring.routing, self._settings.max_message_bytes)
        sent = self._sent[made.topic] = self._sent.get(made.topic, 0) + 1
        self._producer(made.topic).send(
            made.payload,
            properties={**made.headers, wire.ID: made.id, wire.POSITION: str(sent)},
            partition_key=made.key,
            event_timestamp=made.occurred_at or None,
        )
        return made

    def on_their_way(self) -> list[tuple[str, str]]:
        """Return each topic and subscription for which something waits at the broker."""
        return [
            (topic, subscription)
            for topic, sent in self._sent.items()
            for subscription in self._wiring.readers(topic)
            if self._received.get((topic, subscription), 0) < sent
        ]

    def receive(self, topic: str, subscription: str) -> Delivery | None:
        """Return the next message of a topic, and acknowledge it; None where none came at once."""
        import pulsar

        consumer = self._consumer(topic, subscription)
        try:
            message = consumer.receive(RECEIVE_MS)
        except pulsar.Timeout:
            return None
        consumer.acknowledge(message)
        place = topic, subscription
        self._received[place] = self._received.get(place, 0) + 1
        return Delivery.of(message, _Nobody(), size=0)

    def opened(self, delivery: Delivery, topic: str) -> Event[dict[str, Any]]:
        """Return the event of a message.

        Raises:
            InvalidEvent: it is none.

        """
        return replace(delivery.event(self._envelopes), topic=topic)

    def close(self) -> None:
        """Leave nothing at the broker."""
        import pulsar

        for consumer in self._consumers.values():
            with contextlib.suppress(pulsar.PulsarException):
                consumer.unsubscribe()
        for producer in self._producers.values():
            with contextlib.suppress(pulsar.PulsarException):
                producer.close()

    def _producer(self, topic: str) -> pulsar.Producer:
        if topic not in self._producers:
            name = self._wiring.at_broker(topic)
            self._producers[topic] = self._client.create_producer(name)
        return self._producers[topic]

    def _consumer(self, topic: str, subscription: str) -> pulsar.Consumer:
        import pulsar

        place = topic, subscription
        if place not in self._consumers:
            self._consumers[place] = self._client.subscribe(
                self._wiring.at_broker(topic),
                subscription,
                initial_position=pulsar.InitialPosition.Earliest,
            )
        return self._consumers[place]


class _Nobody:
    def may_have_had(self, place: Place) -> bool:  # noqa: ARG002
        """Say yes: nobody asks."""
        return True

    def acknowledge(self, message: pulsar.Message) -> None:
        """Do nothing: it was done when the message came."""
