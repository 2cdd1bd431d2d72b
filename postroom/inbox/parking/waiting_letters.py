"""Waiting letters: what the subscription of a dead-letter topic has not had acknowledged."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from postroom import broker
from postroom.inbox.parking.letters import SUBSCRIPTION

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pulsar

    from postroom.topics import Topic

__all__ = ["WaitingLetters"]

# How long a topic may say nothing, and then once more after it was asked whether it is there,
# before what waits is taken to be at its end: letters behind may have been acknowledged.
QUIET_MILLISECONDS = 2000
ONCE_MORE_MILLISECONDS = 500
# Letters may be large.
QUEUE = 20

# Ledger, entry, index within a batch.
Position = tuple[int, int, int]
EMPTY = (-1, -1, -1)


class WaitingLetters:
    """Reads them in order, up to where the topic ended when it was begun; no clock decides.

    What comes later is not looked at: a redriven event that fails again would come round for ever.
    One reader at a time: another one gets ConsumerBusy.
    """

    def __init__(self, client: pulsar.Client, topic: Topic) -> None:
        self._client = client
        self._topic = topic
        self._consumer: pulsar.Consumer | None = None

    def __iter__(self) -> Iterator[pulsar.Message]:
        """Yield the messages of each topic partition, oldest first.

        Raises:
            pulsar.PulsarException: the broker does not answer, or not to us.

        """
        for topic in self._client.get_topic_partitions(self._topic):
            consumer = self._consumer = self._subscribe(topic)
            try:
                yield from _to_the_end(consumer)
            finally:
                broker.close(consumer)

    def acknowledge(self, message: pulsar.Message) -> None:
        """Take the message that was yielded last off the topic."""
        if self._consumer is not None:
            self._consumer.acknowledge(message)

    def _subscribe(self, topic: str) -> pulsar.Consumer:
        import pulsar

        return self._client.subscribe(
            topic,
            SUBSCRIPTION,
            consumer_type=pulsar.ConsumerType.Exclusive,
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=QUEUE,
            crypto_failure_action=pulsar.ConsumerCryptoFailureAction.CONSUME,
        )


def _to_the_end(consumer: pulsar.Consumer) -> Iterator[pulsar.Message]:
    end, reached = _end(consumer), EMPTY
    while end != EMPTY and (message := _next(consumer)):
        place = _position(message.message_id())
        end = end or _end(consumer)
        if end is not None and place[:2] > end[:2]:
            return
        if place > reached:  # a connection that was lost begins again with what was left
            reached = place
            yield message
        if place == end:
            return


def _next(consumer: pulsar.Consumer) -> pulsar.Message | None:
    import pulsar

    with contextlib.suppress(pulsar.Timeout):
        return consumer.receive(timeout_millis=QUIET_MILLISECONDS)
    _end(consumer)
    with contextlib.suppress(pulsar.Timeout):
        return consumer.receive(timeout_millis=ONCE_MORE_MILLISECONDS)
    return None


def _end(consumer: pulsar.Consumer) -> Position | None:
    """Return the place of the topic's last message; None where the broker cannot tell."""
    import pulsar

    try:
        return _position(consumer.get_last_message_id())
    except pulsar.UnknownError:
        return None  # the embedded broker's way to say that there is none


def _position(message_id: pulsar.MessageId) -> Position:
    return message_id.ledger_id(), message_id.entry_id(), message_id.batch_index()
