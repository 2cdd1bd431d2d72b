"""What a broker can do for exactly-once delivery, found out by trying."""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom import broker
from postroom.refusals import is_away
from postroom.topics import Topic, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pulsar

    from postroom.pulsar_admin import PulsarAdmin

__all__ = ["PROBE", "Abilities", "probe", "stores_anything"]

# One topic in each namespace, with the same name at each start: without a subscription it keeps
# nothing, and the broker takes it away a minute later if the admin interface did not.
PROBE = "postroom-probe"
TRIES = 5
# Somebody else who tries the same may make it look as if the broker could not: one "no" proves
# nothing, and one "yes" all.
DENIALS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a broker can do in some namespaces.

    `unknown` are those in which it could not be tried, as where topics are not made by themselves;
    Apache Pulsar since 2.8 can fence, and so it is taken to. `exempt` are topics whose own policy
    turns deduplication off, where the admin interface tells that.
    """

    fencing: bool
    deduplication: bool
    unknown: tuple[str, ...] = ()
    exempt: tuple[Topic, ...] = ()


def probe(client: pulsar.Client, topics: Iterable[str], admin: PulsarAdmin) -> Abilities:
    """Find out by trying what the broker can do in all namespaces of the topics.

    That is tried on a topic of its own, which is deleted again where it was not there before.
    """
    import pulsar

    fencing, deduplication, unknown = True, True, []
    known = sorted({canonical(topic) for topic in topics})
    for namespace in sorted({topic.rpartition("/")[0] for topic in known}):
        try:
            with _probe_in(namespace, admin) as topic:
                found = _tried(client, topic)
            fencing, deduplication = fencing and found[0], deduplication and found[1]
        except pulsar.PulsarException as error:
            if is_away(type(error).__name__):
                raise
            # No right, no topic made by itself, as many as may be: it says nothing of the others.
            unknown.append(namespace)
    exempt = _exempt(known, admin)
    return Abilities(
        fencing=fencing,
        deduplication=deduplication and not exempt,
        unknown=tuple(unknown),
        exempt=exempt,
    )


def _exempt(topics: Iterable[Topic], admin: PulsarAdmin) -> tuple[Topic, ...]:
    found = []
    for topic in topics:
        exempt = admin.is_exempt_from_deduplication(topic)
        if exempt is None:
            break  # it does not answer, has no topic policies, or tells us nothing of them
        if exempt:
            found.append(topic)
    return tuple(found)


@contextlib.contextmanager
def _probe_in(namespace: str, admin: PulsarAdmin) -> Iterator[Topic]:
    """Lend the probe of a namespace, and delete it again if it was not there before."""
    topic = Topic(f"{namespace}/{PROBE}")
    absent = admin.is_absent(topic)
    try:
        yield topic
    finally:
        if absent:
            admin.delete(topic)


def _tried(client: pulsar.Client, topic: Topic) -> tuple[bool, bool]:
    """Say whether the broker fences, and whether it deduplicates.

    Raises:
        PulsarException: the broker does not let it be tried, or others disturbed it each time.

    """
    import pulsar

    fences = deduplicates = False
    denials = 0
    for left in reversed(range(TRIES)):
        try:
            # A broker may make it partitioned by itself, and what is asked is asked of one log.
            log = broker.partitions_of(client, topic)[0]
            fences = fences or _fences(client, log)
            deduplicates = deduplicates or _deduplicates(client, log)
            denials += 1
        except (pulsar.ProducerFenced, pulsar.ProducerBusy, pulsar.AlreadyClosed):
            # Another relay is trying the same, or is taking the topic away.
            if not left and not denials:
                raise
        if (fences and deduplicates) or denials == DENIALS:
            break
        time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - jitter
    return fences, deduplicates


def _fences(client: pulsar.Client, topic: str) -> bool:
    import pulsar

    fencing = pulsar.ProducerAccessMode.ExclusiveWithFencing
    first = second = None
    try:
        first = client.create_producer(topic, access_mode=fencing)
        second = client.create_producer(topic, access_mode=fencing)
        first.send(b"")
    except (pulsar.ProducerFenced, pulsar.AlreadyClosed):
        return True
    except pulsar.OperationNotSupported:
        return False
    finally:
        for producer in (first, second):
            if producer is not None:
                broker.close(producer)
    return False


def _deduplicates(client: pulsar.Client, topic: str) -> bool:
    producer = client.create_producer(topic, producer_name=PROBE)
    try:
        number = max(producer.last_sequence_id(), 0) + 1
        producer.send(b"", sequence_id=number)
        # A broker that recognises the repeat answers with a message id of -1 (PIP-6).
        return bool(producer.send(b"", sequence_id=number).ledger_id() == -1)
    finally:
        broker.close(producer)


def stores_anything(client: pulsar.Client, admin: PulsarAdmin, topic: Topic) -> bool:
    """Say whether the broker stores a small message on another topic of a topic's namespace."""
    import pulsar

    try:
        with _probe_in(topic.rpartition("/")[0], admin) as other:
            log = broker.partitions_of(client, other)[0]
            producer = client.create_producer(log, send_timeout_millis=5_000)
            try:
                producer.send(b"")
            finally:
                broker.close(producer)
    except pulsar.PulsarException:
        return False
    return True
