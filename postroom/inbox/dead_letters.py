"""Dead letters: events that were given up, kept with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom import broker, wire
from postroom.inbox.letters import SUBSCRIPTION

if TYPE_CHECKING:
    from collections.abc import Callable

    import pulsar

    from postroom.inbox.delivery import Delivery
    from postroom.inbox.handlers import Handler
    from postroom.inbox.held import Failures
    from postroom.settings import Settings

__all__ = ["DeadLetters"]

LONGEST_REASON = 1000
LATEST_TIMESTAMP = 1 << 62


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
