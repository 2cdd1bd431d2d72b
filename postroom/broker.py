"""Pulsar as the rooms see it: a quiet client, subscriptions made ahead, topics that are one log.

The client library is imported inside functions only: it is not fork-safe, so no process that may
fork later is to load it.
"""

from __future__ import annotations

import contextlib
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from postroom import address, errors, pulsar_adapter
from postroom.access import client
from postroom.access import pulsar as pulsar_access
from postroom.topics import base_topic, canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pulsar

    from postroom.access.pulsar import Access
    from postroom.topics import Topic

__all__ = [
    "base_topic",
    "canonical",
    "close",
    "connect",
    "connected",
    "ensure_subscription",
    "ensure_subscription_leniently",
    "masked",
    "partitions_of",
    "require_let_in",
    "require_topic_partitions",
    "require_unpartitioned",
]

logger = logging.getLogger(__name__)

LENIENT_TIMEOUT = timedelta(seconds=1)


def connect(where: Access | str, *, operation_timeout: timedelta) -> pulsar.Client:
    """Make a Pulsar client that prints nothing of its own; close() it in the end.

    `where` is an access, or the address of a broker that asks nobody who they are. No connection is
    opened yet. Each blocking call on the client takes `operation_timeout` at most and then raises
    pulsar.Timeout, also where the broker is down or refuses the credentials; an error
    has a note that says what was tried.

    Raises:
        ServiceUnavailable: there are no credentials to be had now.

    """
    given = pulsar_access.plain(where) if isinstance(where, str) else where
    # In this thread it may fail and say why; in the library's it may not.
    given.credentials.data()
    return client.make(
        given,
        operation_timeout_seconds=max(1, round(operation_timeout.total_seconds())),
        connection_timeout_ms=5_000,
        logger=pulsar_adapter.silence(),
    )


@contextlib.contextmanager
def connected(where: Access | str, *, operation_timeout: timedelta) -> Iterator[pulsar.Client]:
    """Lend a client for the time of a block.

    Raises:
        ServiceUnavailable: an error of the client's left the block which its access explains.

    """
    import pulsar

    made = connect(where, operation_timeout=operation_timeout)
    try:
        yield made
    except (pulsar.PulsarException, errors.PostroomError) as error:
        cause = error.__cause__ if isinstance(error, errors.PostroomError) else error
        if errors.is_transient(error) or cause is error:
            require_let_in(made, cause)
        raise
    finally:
        close(made)


def require_let_in(made: pulsar.Client, error: BaseException | None) -> None:
    """Find out whether an error of a client's means that Pulsar cannot be used with this access.

    Pulsar is asked, in bounded time, where the error does not tell.

    Raises:
        ServiceUnavailable: so it is; the message names server, setting and reason.

    """
    explained = client.explanation(client.access_of(made), error)
    if explained is not None:
        raise errors.ServiceUnavailable(explained) from error


def close(client: Any) -> None:
    """Close a client, consumer, producer or reader; a broken connection is no obstacle."""
    import pulsar

    try:
        client.close()
    except pulsar.PulsarException as error:
        logger.debug("Closing %s: %s", type(client).__name__, error)


def masked(url: str) -> str:
    """Return the hosts of a URL, and nothing else of it, for logs and errors."""
    return address.shown(url)


def ensure_subscription(client: pulsar.Client, topic: str, subscription: str) -> None:
    """Make a durable subscription from the beginning, unless it exists, on each topic partition.

    A topic without one keeps nothing, so that what is sent before the first consumer would be
    gone. Consumers that are connected are not disturbed: the broker then answers that it is busy,
    which says that the subscription exists.

    Raises:
        pulsar.PulsarException: the broker did not answer.

    """
    import pulsar

    try:
        _make_subscription(client, topic, subscription)
    except pulsar.InvalidConfiguration:
        # Of a partitioned topic the client reads nothing without a queue, but of its partitions.
        for each in client.get_topic_partitions(topic):
            _make_subscription(client, each, subscription)


def _make_subscription(client: pulsar.Client, topic: str, subscription: str) -> None:
    import pulsar

    with contextlib.suppress(pulsar.ConsumerBusy):
        consumer = client.subscribe(
            topic,
            subscription,
            consumer_type=pulsar.ConsumerType.Exclusive,
            initial_position=pulsar.InitialPosition.Earliest,
            # It asks for nothing: at the end of a terminated topic the client, which does not
            # understand the broker's word for that, would lose its connection.
            receiver_queue_size=0,
        )
        close(consumer)


def ensure_subscription_leniently(where: Access, topic: str, subscription: str) -> None:
    """Do the same on a broker that refuses no second consumer, as the embedded one.

    It lets the second one time out, for want of room or because it takes two clients' consumers
    for one. Either way somebody is connected, so the subscription exists.
    """
    import pulsar

    with (
        contextlib.suppress(pulsar.Timeout),
        connected(where, operation_timeout=LENIENT_TIMEOUT) as client,
    ):
        client.subscribe(
            topic,
            subscription,
            consumer_type=pulsar.ConsumerType.KeyShared,
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=0,
        )


def partitions_of(client: pulsar.Client, topic: Topic) -> list[str]:
    """Return the topics that are a topic's partitions, or itself where it has none.

    A broker that makes topics by itself makes it now.

    Raises:
        pulsar.PulsarException: the broker did not answer, has no such topic, or allows for neither.

    """
    return list(client.get_topic_partitions(topic))


def require_unpartitioned(client: pulsar.Client, topic: Topic) -> None:
    """Make sure that a topic is one log.

    The acknowledgements of a partitioned one come in no order, and it has no one end: nothing could
    tell what is stored. One with a single topic partition may get more of them at any time.

    Raises:
        PartitionedTopic: it is partitioned.

    """
    partitions = partitions_of(client, topic)
    if partitions != [topic]:
        count = len(partitions)
        raise errors.PartitionedTopic(
            f"The topic {topic} has {count} topic partition{'s' if count > 1 else ''}, and a relay "
            "keeps one order: route to a topic without any, or to one of these by its own name "
            "(…-partition-0). Nothing is sent there. Where the broker makes topics partitioned by "
            "itself (allowAutoTopicCreationType), delete this one and make it with "
            f"`pulsar-admin topics create {topic}`"
        )


def require_topic_partitions(client: pulsar.Client, topic: Topic, count: int) -> None:
    """Make sure that a topic has as many topic partitions as the outbox has outbox partitions.

    A client that knows another number sends a key elsewhere.

    Raises:
        PartitionedTopic: it has another number, or none.

    """
    there = partitions_of(client, topic)
    if len(there) == count and there != [topic]:
        return
    if there == [topic]:
        raise errors.PartitionedTopic(
            f"The topic {topic} has no topic partitions, and the outbox has {count} outbox "
            "partitions, each of which goes to one. Nothing is sent there. Make it with "
            f"`pulsar-admin topics create-partitioned-topic {topic} --partitions {count}`; one "
            "that is there without any cannot get them: route to another topic (docs/scaling.md)"
        )
    remedy = (
        f"`pulsar-admin topics update-partitioned-topic {topic} --partitions {count}` adds to it"
        if len(there) < count
        else "one cannot have fewer: route to another topic"
    )
    raise errors.PartitionedTopic(
        f"The topic {topic} has {len(there)} topic partition{'s' if len(there) > 1 else ''}, and "
        f"the outbox {count} outbox partitions, each of which goes to one. Nothing is sent there: "
        f"{remedy}, or change the outbox (docs/scaling.md)"
    )
