"""Way back: dead letters on their way to the handler that failed."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

from postroom import broker, errors, refusals, wire
from postroom.access.client import access_of
from postroom.inbox.parking.letters import properties_of
from postroom.inbox.receiving.directory import is_embedded
from postroom.inbox.receiving.selection import redrive_topic

if TYPE_CHECKING:
    import pulsar

    from postroom.inbox.parking.letters import DeadLetter
    from postroom.topics import Topic

__all__ = ["WayBack"]

TIMEOUT_SECONDS = 15.0


class WayBack:
    """Sends letters to the redrive topics of a subscription, whose consumers read them there.

    Each topic has the subscription before its first letter, so that nothing sent there vanishes. A
    client of its own, since a message that the broker refuses breaks the connection.
    """

    def __init__(self, client: pulsar.Client, subscription: str) -> None:
        self._client = client
        self._subscription = subscription
        self._producers: dict[str, pulsar.Producer] = {}

    def send(self, message: pulsar.Message, letter: DeadLetter, topic: Topic) -> None:
        """Send a letter back and wait until it is stored.

        Raises:
            ServiceUnavailable: it was not, in bounded time; the message says why.

        """
        to = redrive_topic(topic, self._subscription)
        try:
            answer = self._sent(self._producer(to), message, letter, topic)
        except Exception as error:  # noqa: BLE001 - its text or name goes into the sentence
            self._producers.pop(to, None)
            answer = type(error).__name__
        if answer != "Ok":
            raise errors.ServiceUnavailable(
                f"{letter.id} could not be put back on {to} ({refusals.meaning(answer)})"
            )

    def _sent(
        self, producer: pulsar.Producer, message: pulsar.Message, letter: DeadLetter, topic: Topic
    ) -> str:
        properties = {
            name: value
            for name, value in properties_of(message).items()
            if not name.startswith("dead-letter-")
        }
        properties[wire.DEAD_TOPIC] = topic
        properties[wire.REDRIVE_HANDLER] = letter.handler
        answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        producer.send_async(
            message.data(),
            lambda result, _: answers.put(result.name),
            properties=properties,
            partition_key=letter.key,
            ordering_key=message.ordering_key() or None,
            event_timestamp=message.event_timestamp() or None,
        )
        try:
            return answers.get(timeout=TIMEOUT_SECONDS)
        except queue.Empty:
            # The client's own timeout begins anew whenever a refusal breaks the connection.
            broker.close(producer)
            raise TimeoutError from None

    def _producer(self, topic: Topic) -> pulsar.Producer:
        import pulsar

        if topic not in self._producers:
            try:
                broker.ensure_subscription(self._client, topic, self._subscription)
            except pulsar.Timeout:
                # The embedded broker's way to say that it exists; any other one has not answered.
                if not is_embedded(access_of(self._client), timeout_seconds=TIMEOUT_SECONDS):
                    raise
            self._producers[topic] = self._client.create_producer(topic, chunking_enabled=True)
        return self._producers[topic]
