"""Examining Pulsar: broker, topics, subscriptions, dead letters, retention, TLS."""

from __future__ import annotations

from datetime import timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any

from postroom import abilities, broker, preflight, rights, wire
from postroom.access import pulsar as pulsar_access
from postroom.access.tls import located
from postroom.expiry import expiry
from postroom.findings import Finding, Grade
from postroom.inbox.parking.letters import SUBSCRIPTION
from postroom.inbox.parking.redriving import exists
from postroom.inbox.receiving.selection import dead_letter_topic, redrive_topic
from postroom.operations.provisioning import Provisioning
from postroom.topics import namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pulsar

    from postroom.access.pulsar import Access
    from postroom.operations.wiring import Wiring
    from postroom.topics import Topic

__all__ = ["examine"]

OPERATION_TIMEOUT = timedelta(seconds=8)
SETUP = "celery -A … outbox setup"


def examine(wiring: Wiring) -> list[Finding]:
    """Look at the broker, and at its admin interface where that answers.

    Raises:
        ServiceUnavailable: it cannot be used with these settings.
        pulsar.PulsarException: it does not answer.

    """
    settings, access = wiring.settings, pulsar_access.of(wiring.settings)
    admin = Provisioning(access)
    with broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as client:
        found = list(_topics(client, access, wiring))
        found += _rights(client, access, wiring)
        able = abilities.probe(client, wiring.routing.topics, admin)
    found += preflight.delivery(
        able,
        demanded=settings.delivery == "exactly_once",
        has_shared=wiring.routing.has_shared,
        where=broker.masked(settings.pulsar_url),
    )
    version = admin.version()
    if version is None:
        found.append(_no_admin(settings.pulsar_admin_url, admin.refusal))
        return found
    client_version = metadata.version("pulsar-client")
    found.append(
        Finding(
            what="Pulsar's version",
            found=f"The broker is {version}, its client's library {client_version}",
        )
    )
    found += preflight.retention(admin, wiring.routing.topics)
    found += _retention_and_inbox(admin, wiring)
    for subscription, topic in wiring.subscribed():
        found += _subscription(admin, subscription, topic)
        found += _dead_letters(admin, wiring, subscription, topic)
    found += expiry(admin, _awaited(wiring))
    for topic in wiring.routing.topics:
        found += _strangers(admin, wiring, topic)
    return found


def _topics(client: pulsar.Client, access: Access, wiring: Wiring) -> Iterator[Finding]:
    mutex = broker.canonical(wiring.settings.mutex_topic)
    for topic in dict.fromkeys([*wiring.routing.topics, mutex]):
        if exists(access, topic):
            count = 1 if topic == mutex else wiring.routing.partitions
            yield from preflight.topics(client, [topic], partitions=count)
        else:
            yield Finding(
                what=f"topic {topic}",
                found=f"There is no topic {topic} yet",
                grade=Grade.WARN,
                remedy=SETUP,
            )


def _rights(client: pulsar.Client, access: Access, wiring: Wiring) -> Iterator[Finding]:
    """Look at what an operator has to be allowed: to read dead letters, and to put them back."""
    if not access.credentials.setting:
        yield Finding(what="rights in Pulsar", found="Pulsar was not told who this is")
        return
    for subscription, topic in wiring.subscribed():
        letters = dead_letter_topic(wiring.settings, topic, subscription)
        back = redrive_topic(topic, subscription)
        for at, wanted in ((letters, ("consume",)), (back, ("produce", "consume"))):
            # To ask for one that is not there would make it.
            if exists(access, at):
                yield from rights.in_pulsar(client, [at], wanted=wanted)


def _no_admin(url: str, refusal: str | None) -> Finding:
    unseen = "its version, retention, subscriptions, consumers and dead letters were not looked at"
    if refusal is None:
        found = f"It does not answer at {broker.masked(url)}: {unseen}"
        remedy = "Set POSTROOM_PULSAR_ADMIN_URL to it"
    else:
        found = f"{located(refusal, 'POSTROOM_PULSAR_ADMIN_URL')}: {unseen}"
        remedy = "Put right what it names: docs/security.md says how"
    what = "Pulsar's admin interface"
    return Finding(what=what, found=found, grade=Grade.WARN, remedy=remedy)


def _subscription(admin: Provisioning, subscription: str, topic: Topic) -> Iterator[Finding]:
    what, found = f"subscription {subscription} on {topic}", _subscriptions(admin, topic)
    if found is None:
        return
    if subscription not in found:
        yield Finding(
            what=what,
            found=f"There is no subscription {subscription} on {topic}: what is sent before it "
            "exists may be gone",
            grade=Grade.WARN,
            remedy=SETUP,
        )
        return
    waiting, consumers = _numbers(found[subscription])
    if consumers:
        yield Finding(what=what, found=f"{consumers} consumers read it, {_said(waiting)} wait")
        return
    yield Finding(
        what=what,
        found=f"Nobody consumes it, and {_said(waiting)} wait",
        grade=Grade.WARN,
        remedy="celery -A … worker -Q consumer",
    )


def _dead_letters(
    admin: Provisioning, wiring: Wiring, subscription: str, topic: Topic
) -> Iterator[Finding]:
    at = dead_letter_topic(wiring.settings, topic, subscription)
    what, found = f"dead letters of {subscription} on {topic}", _subscriptions(admin, at)
    if found is None:
        return
    if not found:
        absent = admin.is_absent(at)
        yield Finding(
            what=what,
            found=f"There is no topic {at} yet, and no dead letter"
            if absent
            else f"The topic {at} has no subscription {SUBSCRIPTION}: letters may vanish there",
            grade=Grade.OK if absent else Grade.WARN,
            remedy="" if absent else SETUP,
        )
        return
    waiting, _ = _numbers(found.get(SUBSCRIPTION, {}))
    yield Finding(
        what=what,
        found=f"{_said(waiting, 'dead letters')} wait on {at}" if waiting else f"None wait on {at}",
        grade=Grade.WARN if waiting else Grade.OK,
        remedy=f"celery -A … dead-letters list --topic {topic} --subscription {subscription}"
        if waiting
        else "",
    )


def _awaited(wiring: Wiring) -> Iterator[tuple[str, Topic]]:
    """Return what waits where until somebody acknowledges it: events, and their dead letters."""
    yield from wiring.subscribed()
    letters = (dead_letter_topic(wiring.settings, t, s) for s, t in wiring.subscribed())
    yield from ((SUBSCRIPTION, at) for at in dict.fromkeys(letters))


def _strangers(admin: Provisioning, wiring: Wiring, topic: Topic) -> Iterator[Finding]:
    for name, details in (_subscriptions(admin, topic) or {}).items():
        waiting, consumers = _numbers(details)
        if name in wiring.consume or consumers or not waiting or not details.get("isDurable", True):
            continue
        if name.startswith(wire.RELAY):
            continue  # a relay's own cursor, which no relay holds now and the next one needs
        yield Finding(
            what=f"subscription {name} on {topic}",
            found=f"It is none of this application's, nobody consumes it, and {_said(waiting)} "
            "wait: the broker keeps them for ever",
            grade=Grade.WARN,
            remedy=f"pulsar-admin topics unsubscribe {topic} -s {name}",
        )


def _retention_and_inbox(admin: Provisioning, wiring: Wiring) -> Iterator[Finding]:
    remembered = wiring.settings.inbox_days * 24 * 60
    for namespace in sorted(set(map(namespace_of, wiring.routing.topics))):
        minutes = admin.keeps_for_minutes(namespace)
        if minutes is not None and (minutes < 0 or minutes > remembered):
            kept = "for ever" if minutes < 0 else f"for {minutes // 1440} days"
            yield Finding(
                what=f"inbox and retention of {namespace}",
                found=f"Its topics keep events {kept}, and the inbox remembers them for "
                f"{wiring.settings.inbox_days:g} days: what is read again later is handled again",
                grade=Grade.WARN,
                remedy="Raise POSTROOM_INBOX_DAYS above the retention, or shorten that",
            )


def _subscriptions(admin: Provisioning, topic: Topic) -> Mapping[str, Any] | None:
    found = admin.statistics(topic)
    subscriptions = None if found is None else found.get("subscriptions", {})
    return subscriptions if isinstance(subscriptions, dict) else None


def _said(waiting: int, what: str = "messages") -> str:
    """Say what waits: neither a batch nor the chunks of a large message are told from one."""
    if not waiting:
        return f"0 {what}"
    entries = "1 entry" if waiting == 1 else f"{waiting} entries"
    return f"{entries} of {what} (a batch is one, a large message one for each of its chunks)"


def _numbers(details: Mapping[str, Any]) -> tuple[int, int]:
    consumers = details.get("consumers")
    return int(details.get("msgBacklog") or 0), len(consumers) if consumers else 0
