"""Setup: collections, indexes, topics, subscriptions, deduplication: made where missing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from postroom import broker, preflight, wire
from postroom.access import pulsar as pulsar_access
from postroom.findings import Grade
from postroom.inbox.parking.letters import SUBSCRIPTION
from postroom.inbox.receiving.directory import is_embedded
from postroom.inbox.receiving.selection import dead_letter_topic, redrive_topic
from postroom.operations import actions
from postroom.operations.provisioning import Provisioning
from postroom.store import checkpoint_index, plan_indexes, quarantine_index
from postroom.store.action_log import ActionLog
from postroom.store.begun import Begun
from postroom.store.inbox_rows import InboxRows
from postroom.store.plainness import make_plain
from postroom.topics import namespace_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pulsar
    from pymongo.database import Database

    from postroom.operations.actions import Actor
    from postroom.operations.wiring import Wiring
    from postroom.topics import Topic

__all__ = ["SetupStep", "in_mongodb", "in_pulsar", "setup"]

OPERATION_TIMEOUT = timedelta(seconds=10)
LOOK_SECONDS = 3.0
COLLECTIONS = (
    wire.OUTBOX,
    wire.CHECKPOINTS,
    wire.QUARANTINE,
    wire.SCHEDULED,
    wire.SCHEDULE_NAMES,
    wire.FIRED,
    wire.INBOX,
    wire.BEGUN,
    wire.ACTIONS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupStep:
    """One thing that has to be there: whether it is, and whether that is news.

    Where `failed`, `what` says why and what to do.
    """

    what: str
    made: bool = False
    failed: bool = False


def setup(database: Database[Any], wiring: Wiring, *, actor: Actor) -> list[SetupStep]:
    """Make whatever is missing, and say of each thing whether it was.

    Done again it changes nothing.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.
        ServiceUnavailable: Pulsar cannot be used with these settings.
        pulsar.PulsarException: Pulsar does not answer.

    """
    with actions.noted(database, actor, "setup", target=f"database {database.name}") as note:
        steps = in_mongodb(database, wiring)
        note.count = sum(step.made for step in steps)
        steps += in_pulsar(wiring)
        note.count = sum(step.made for step in steps)
        if failed := sum(step.failed for step in steps):
            note.result = f"{failed} steps failed"
    return steps


def in_mongodb(database: Database[Any], wiring: Wiring) -> list[SetupStep]:
    """Make the collections and their indexes.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    there = set(database.list_collection_names())
    steps = []
    for name in COLLECTIONS:
        made = name not in there and make_plain(database, name)
        steps.append(SetupStep(what=f"collection {name}", made=made))
    keep = timedelta(days=wiring.settings.inbox_days)
    indexes: Sequence[tuple[str, Callable[[], None]]] = (
        (wire.CHECKPOINTS, lambda: checkpoint_index.prepare(database)),
        (wire.QUARANTINE, lambda: quarantine_index.prepare(database)),
        (wire.SCHEDULED, lambda: plan_indexes.prepare_plan(database)),
        (wire.FIRED, lambda: plan_indexes.prepare_fired(database)),
        (wire.INBOX, lambda: InboxRows(database).prepare(keep=keep)),
        (wire.BEGUN, Begun(database, owner="").prepare),
        (wire.ACTIONS, ActionLog(database).prepare),
    )
    for name, make in indexes:
        before = _indexes(database, name)
        make()
        made = _indexes(database, name) != before
        steps.append(SetupStep(what=f"index of {name}", made=made))
    return steps


def _indexes(database: Database[Any], name: str) -> list[str]:
    return sorted(map(str, database[name].index_information().items()))


def in_pulsar(wiring: Wiring) -> list[SetupStep]:
    """Make topics, subscriptions and what dead letters need; have namespaces deduplicate.

    Raises:
        ServiceUnavailable: Pulsar cannot be used with these settings.
        pulsar.PulsarException: Pulsar does not answer.

    """
    access = pulsar_access.of(wiring.settings)
    admin = Provisioning(access)
    embedded = is_embedded(access, timeout_seconds=LOOK_SECONDS)
    with broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as client:
        make = _maker(client, wiring, embedded=embedded)
        steps = [_topic(admin, client, topic, count) for topic, count in _topics(wiring).items()]
        steps += [
            _subscribed(admin, topic, subscription, make)
            for topic, subscription in _subscriptions(wiring)
        ]
    steps += [
        _deduplicating(admin, namespace, embedded=embedded)
        for namespace in sorted(set(map(namespace_of, wiring.routing.topics)))
    ]
    return steps


def _topics(wiring: Wiring) -> dict[Topic, int]:
    """Return all topics, with the number of topic partitions that each is to have."""
    mutex = broker.canonical(wiring.settings.mutex_topic)
    read = [topic for _, topic in wiring.subscribed()]
    sent = dict.fromkeys(wiring.routing.topics, wiring.routing.partitions)
    return {**sent, **{topic: 1 for topic in (mutex, *read) if topic not in sent}}


def _subscriptions(wiring: Wiring) -> Iterator[tuple[Topic, str]]:
    for subscription, topic in wiring.subscribed():
        yield topic, subscription
        yield dead_letter_topic(wiring.settings, topic, subscription), SUBSCRIPTION
        yield redrive_topic(topic, subscription), subscription


def _topic(admin: Provisioning, client: pulsar.Client, topic: Topic, count: int) -> SetupStep:
    what = f"topic {topic}"
    if admin.is_absent(topic):
        if admin.create(topic) if count == 1 else admin.divide(topic, count):
            return SetupStep(what=what, made=True)
        return SetupStep(
            what=f"{what} is not there, and could not be made: {preflight.creation(topic, count)}",
            failed=True,
        )
    (finding,) = preflight.topics(client, [topic], partitions=count)
    failed = finding.grade is not Grade.OK
    return SetupStep(what=f"{what}: {finding.sentence}" if failed else what, failed=failed)


def _subscribed(
    admin: Provisioning, topic: Topic, subscription: str, make: Callable[[Topic, str], None]
) -> SetupStep:
    what = f"subscription {subscription} on {topic}"
    known = admin.statistics(topic)
    there = known is not None and subscription in known.get("subscriptions", {})
    (finding,) = preflight.subscriptions({subscription: [topic]}, make, admin=admin)
    failed = finding.grade is not Grade.OK
    made = known is not None and not there and not failed
    return SetupStep(
        what=f"{what}: {finding.sentence}" if failed else what, made=made, failed=failed
    )


def _maker(
    client: pulsar.Client, wiring: Wiring, *, embedded: bool
) -> Callable[[Topic, str], None]:
    if embedded:
        access = pulsar_access.of(wiring.settings)

        def make(topic: Topic, name: str) -> None:
            if name == SUBSCRIPTION:
                # Read by one at a time. What was Key_Shared at first it hands out twice at most, so
                # that dead letters that were listed twice would never be seen again.
                broker.ensure_subscription(client, topic, name)
            else:
                broker.ensure_subscription_leniently(access, topic, name)

        return make
    return lambda topic, name: broker.ensure_subscription(client, topic, name)


def _deduplicating(admin: Provisioning, namespace: str, *, embedded: bool) -> SetupStep:
    what = f"deduplication in {namespace}"
    if admin.deduplicates(namespace):
        return SetupStep(what=what)
    if not embedded and admin.deduplicate(namespace):
        return SetupStep(what=what, made=True)
    remedy = (
        "the embedded broker has none"
        if embedded
        else "the admin interface did not do it: pulsar-admin namespaces set-deduplication -e "
        + namespace
    )
    return SetupStep(what=f"{what}: {remedy}", failed=not embedded)
