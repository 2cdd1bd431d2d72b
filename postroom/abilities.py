"""What a broker can do for exactly-once delivery, found out by trying."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom import broker, jitter, restraints
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
    Apache Pulsar since 2.8 can fence, and so it is taken to. `crowded` are those whose topics take
    one producer alone, so that no second one could try to fence out a first. `exempt` are topics
    that lack deduplication unlike others, by their own policy or their namespace's, where the admin
    interface tells that.
    """

    fencing: bool
    deduplication: bool
    unknown: tuple[str, ...] = ()
    crowded: tuple[str, ...] = ()
    exempt: tuple[Topic, ...] = ()


@dataclass(frozen=True, slots=True)
class _Tried:
    """What was found in one namespace; None where it could not be tried."""

    fences: bool | None = None
    deduplicates: bool | None = None


def probe(client: pulsar.Client, topics: Iterable[str], admin: PulsarAdmin) -> Abilities:
    """Find out by trying what the broker can do in all namespaces of the topics.

    That is tried on a topic of its own, which is deleted again where it was not there before.

    Raises:
        pulsar.PulsarException: the broker does not answer.

    """
    known = sorted({canonical(topic) for topic in topics})
    tried = {space: _tried_in(client, space, admin) for space in sorted(map(_space, known))}
    own = _own_policies(known, admin)
    lacking = [topic for topic in known if not _has(own[topic], tried[_space(topic)].deduplicates)]
    is_general = len(lacking) == len(known) and all(own[topic] is None for topic in lacking)
    return Abilities(
        fencing=all(found.fences is not False for found in tried.values()),
        deduplication=not lacking,
        unknown=tuple(space for space, found in tried.items() if found.deduplicates is None),
        crowded=tuple(
            space
            for space, found in tried.items()
            if found.fences is None and found.deduplicates is not None
        ),
        exempt=() if is_general else tuple(lacking),
    )


def _has(own: bool | None, general: bool | None) -> bool:  # noqa: FBT001 - what was found out
    return general is not False if own is None else own


def _space(topic: str) -> str:
    return topic.rpartition("/")[0]


def _tried_in(client: pulsar.Client, space: str, admin: PulsarAdmin) -> _Tried:
    import pulsar

    try:
        with _probe_in(space, admin) as topic:
            return _tried(client, topic)
    except pulsar.PulsarException as error:
        # What it does not take it does not answer to.
        encrypted = restraints.demands_encryption(admin, Topic(f"{space}/{PROBE}"))
        if is_away(type(error).__name__) and not encrypted:
            raise
        # No right, no topic made by itself, as many as may be: it says nothing of the others.
        return _Tried()


def _own_policies(topics: Iterable[Topic], admin: PulsarAdmin) -> dict[Topic, bool | None]:
    """Return for each topic whether its own policy turns deduplication on or off, None if none."""
    found, is_told = dict.fromkeys(topics), True
    for topic in found:
        if is_told:
            policy = admin.policy(topic.replace("://", "/"), "deduplicationEnabled")
            is_told = policy.is_told  # where nobody is there it is not asked again
            found[topic] = policy.value if isinstance(policy.value, bool) else None
    return found


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


def _tried(client: pulsar.Client, topic: Topic) -> _Tried:
    """Say whether the broker fences, and whether it deduplicates.

    Raises:
        PulsarException: the broker does not let it be tried, or others disturbed it each time.

    """
    import pulsar

    fences: bool | None = None
    deduplicates: bool | None = None
    denials = 0
    for left in reversed(range(TRIES)):
        try:
            # A broker may make it partitioned by itself, and what is asked is asked of one log.
            log = broker.partitions_of(client, topic)[0]
            deduplicates = deduplicates or _deduplicates(client, log)
            fences = fences or _fences(client, log)
            denials += 1
        except (pulsar.ProducerFenced, pulsar.ProducerBusy, pulsar.AlreadyClosed):
            # Another relay is trying the same, or is taking the topic away; or the topic takes one
            # producer alone.
            if not left and deduplicates is None:
                raise
        if (fences and deduplicates) or denials == DENIALS:
            break
        time.sleep(jitter.between(0.1, 0.5))
    return _Tried(fences, deduplicates)


def _fences(client: pulsar.Client, topic: str) -> bool:
    """Say whether a second producer fences out a first.

    Raises:
        pulsar.ProducerBusy: no second one is let in (maxProducersPerTopic), which comes before.

    """
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
