"""Preflight: what relay, doctor and setup look at, as a list of findings.

Start-up logs and obeys the list; whoever wants to know prints it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo import errors as mongo

from postroom import broker, errors
from postroom.abilities import PROBE
from postroom.access.client import access_of
from postroom.findings import Finding, Grade
from postroom.refusals import is_away, meaning, why
from postroom.restraints import lacks_subscription
from postroom.server_codes import UNAUTHORIZED
from postroom.store import clients, plainness
from postroom.topics import Topic, namespace_of, subscribed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pulsar
    from pymongo import MongoClient
    from pymongo.database import Database

    from postroom.abilities import Abilities
    from postroom.pulsar_admin import PulsarAdmin

__all__ = [
    "MakeSubscription",
    "collections",
    "creation",
    "deletions",
    "delivery",
    "mongodb",
    "retention",
    "subscriptions",
    "topics",
]

FIT = "MongoDB"
SHARDING = "sharding"
DELIVERY = "what the broker can do"

Seen = TypeVar("Seen")

# Makes a subscription on a topic, unless it is there.
MakeSubscription = Callable[[Topic, str], None]


def mongodb(client: MongoClient[Any]) -> list[Finding]:
    """Look whether MongoDB has transactions and change streams, is recent enough, and sharded.

    Raises:
        pymongo.errors.PyMongoError: it does not answer.

    """
    try:
        clients.require_fit_server(client)
    except errors.ServiceUnavailable as error:
        remedy = 'mongosh "$POSTROOM_MONGODB_URI" --eval "db.hello()" shows what it is'
        return [Finding(what=FIT, found=str(error), grade=Grade.FAIL, remedy=remedy)]
    return [
        Finding(what=FIT, found="MongoDB is recent enough and a replica set or a sharded cluster"),
        _sharding(client),
    ]


def _sharding(client: MongoClient[Any]) -> Finding:
    if not clients.is_sharded(client):
        return Finding(what=SHARDING, found="MongoDB is a replica set: one oplog, one order")
    return Finding(
        what=SHARDING,
        found="MongoDB is a sharded cluster: an event is seen once every shard has passed its "
        "time, which takes up to ten seconds where one of them is idle",
        grade=Grade.WARN,
        remedy="db.adminCommand({setParameter: 1, periodicNoopIntervalSecs: 1}), on each "
        "member of each shard",
    )


def collections(database: Database[Any], names: Sequence[str]) -> list[Finding]:
    """Look whether collections that are there are plain; nothing is found where none may look.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    return [
        Finding(
            what=f"collection {name}",
            found=f"{name} of database {database.name!r} is {kind}: what is kept there could be "
            "refused, gone, or taken for something else",
            grade=Grade.FAIL,
            remedy="Move its rows into a plain collection of that name (docs/guarantees.md)",
        )
        for name, kind in _seen(lambda: plainness.oddities(database, names).items())
    ]


def deletions(database: Database[Any], names: Sequence[str]) -> list[Finding]:
    """Look for TTL indexes of others in collections; nothing is found where none may look.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    return [
        Finding(
            what=f"index {each.name} of {each.collection}",
            found=f"The TTL index {each.name!r} of {each.collection} has MongoDB delete rows "
            f"{each.seconds} s after their {each.field!r}, whether they are needed or not",
            grade=Grade.WARN,
            remedy=f'In mongosh: db.getCollection("{each.collection}").dropIndex("{each.name}")',
        )
        for each in _seen(lambda: plainness.deletions(database, names))
    ]


def _seen(look: Callable[[], Iterable[Seen]]) -> list[Seen]:
    try:
        return list(look())
    except mongo.OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        return []


def topics(
    client: pulsar.Client,
    known: Iterable[Topic],
    *,
    partitions: int = 1,
    admin: PulsarAdmin | None = None,
) -> list[Finding]:
    """Look whether the topics that are known beforehand are there and one log each.

    Or, with several `partitions`, whether each has so many topic partitions; with an `admin`
    interface those that are not there are made.

    Raises:
        pulsar.PulsarException: the broker does not answer.

    """
    found = []
    for topic in known:
        if partitions > 1 and admin is not None:
            admin.divide(topic, partitions)
        found.append(_topic(client, topic, partitions))
    return found


def _topic(client: pulsar.Client, topic: Topic, partitions: int) -> Finding:
    import pulsar

    what = f"topic {topic}"
    try:
        if partitions == 1:
            broker.require_unpartitioned(client, topic)
        else:
            broker.require_topic_partitions(client, topic, partitions)
    except errors.PartitionedTopic as error:
        return Finding(
            what=what,
            found=str(error),
            grade=Grade.FAIL,
            remedy=f"pulsar-admin topics get-partitioned-topic-metadata {topic} shows what it is",
            lasting=True,
        )
    except pulsar.PulsarException as error:
        if is_away(type(error).__name__):
            raise
        return Finding(
            what=what,
            found=f"The topic {topic} cannot be used ({why(error, access_of(client))})",
            grade=Grade.WARN,
            remedy=_remedy(topic, error, partitions),
        )
    is_what = "one log" if partitions == 1 else f"has {partitions} topic partitions"
    return Finding(what=what, found=f"The topic {topic} is there, and {is_what}")


def _remedy(topic: Topic, error: Exception, partitions: int) -> str:
    match type(error).__name__:
        case "TopicNotFound":
            return creation(topic, partitions)
        case "AuthorizationError":
            actions = "--role … --actions produce,consume"
            return f"pulsar-admin topics grant-permission {topic} {actions}"
    return ""


def creation(topic: Topic, partitions: int) -> str:
    """Return the command that makes a topic."""
    if partitions == 1:
        return f"pulsar-admin topics create {topic}"
    return f"pulsar-admin topics create-partitioned-topic {topic} --partitions {partitions}"


def delivery(found: Abilities, *, demanded: bool, has_shared: bool, where: str) -> list[Finding]:
    """Judge what a broker can do; `demanded` says that exactly once is to be had or nothing."""
    findings = []
    if lacking := _lacking(found):
        findings.append(_cannot(lacking, where) if demanded else _weaker(lacking, found))
    else:
        findings.append(Finding(what=DELIVERY, found="The broker fences and deduplicates"))
    if found.crowded:
        findings.append(
            Finding(
                what="producers of a topic",
                found=f"Topics in {', '.join(found.crowded)} take one producer alone "
                "(maxProducersPerTopic): whether the broker fences could not be tried there, and a "
                "relay that takes over from a frozen one waits until the broker has dropped that",
                grade=Grade.WARN,
                remedy="Allow for two: pulsar-admin namespaces set-max-producers-per-topic -p 2",
            )
        )
    if has_shared and demanded:
        findings.append(
            Finding(
                what="shared topics",
                found="POSTROOM_DELIVERY is exactly_once, but install(shared=…) names topics with "
                "other producers, which cannot be fenced. Nothing is relayed",
                grade=Grade.FAIL,
                remedy="Leave them out, or choose best_available",
                lasting=True,
            )
        )
    return findings


def _cannot(lacking: str, where: str) -> Finding:
    return Finding(
        what=DELIVERY,
        found=f"POSTROOM_DELIVERY is exactly_once, but the broker at {where} lacks {lacking}. "
        "Nothing is relayed",
        grade=Grade.FAIL,
        remedy="Turn it on, or choose best_available",
        lasting=True,
    )


def _weaker(lacking: str, found: Abilities) -> Finding:
    made = "".join(f"; to have it tried, make {space}/{PROBE}" for space in found.unknown)
    return Finding(
        what=DELIVERY,
        found=f"The broker lacks {lacking}: every event still arrives, in order, but a frozen "
        "relay that wakes up or a lost connection may send some twice",
        grade=Grade.WARN,
        remedy="Deduplication is turned on for the namespace (pulsar-admin namespaces "
        "set-deduplication -e), unless a topic's own policy turns it off (pulsar-admin topics "
        "remove-deduplication); fencing comes with Apache Pulsar 2.8 and later" + made,
    )


def _lacking(found: Abilities) -> str:
    missing = [
        name
        for name, there in (("fencing", found.fencing), ("deduplication", found.deduplication))
        if not there
    ]
    if found.exempt:
        # The namespace has it, or not: these lack it by a policy of their own.
        missing[missing.index("deduplication")] = f"deduplication on {', '.join(found.exempt)}"
    if found.unknown:
        missing.append(f"a topic {PROBE} to try that on in {', '.join(found.unknown)}")
    return " and ".join(missing)


def retention(admin: PulsarAdmin, known: Iterable[Topic]) -> list[Finding]:
    """Look for how long the topics' namespaces keep what was acknowledged, where that is told."""
    findings = []
    for namespace in sorted(set(map(namespace_of, known))):
        minutes = admin.keeps_for_minutes(namespace)
        if minutes == 0:
            findings.append(
                Finding(
                    what=f"retention of {namespace}",
                    found=f"The namespace {namespace} keeps nothing that all subscriptions have "
                    "acknowledged. What a relay that takes over has to see the relay's own "
                    "subscription keeps; what was sent before that is sent again where the history "
                    "of the change stream is lost, or the outbox is replaced by an older one",
                    grade=Grade.WARN,
                    remedy=f"pulsar-admin namespaces set-retention {namespace} --time 1h --size 1G",
                )
            )
        elif minutes is not None:
            kept = "for ever" if minutes < 0 else f"for {minutes} minutes"
            findings.append(
                Finding(
                    what=f"retention of {namespace}",
                    found=f"The namespace {namespace} keeps what was sent {kept}",
                )
            )
    return findings


def subscriptions(
    wanted: Mapping[str, Sequence[str]], make: MakeSubscription, *, admin: PulsarAdmin | None = None
) -> list[Finding]:
    """Have the subscriptions made that consumers will use, and say which could not be.

    The `admin` interface tells a broker that makes none by itself from one that is not there.

    Raises:
        pulsar.PulsarException: the broker does not answer.

    """
    return [
        _subscription(subscription, topic, make, admin)
        for subscription, topic in subscribed(wanted)
    ]


def _subscription(
    subscription: str, topic: Topic, make: MakeSubscription, admin: PulsarAdmin | None
) -> Finding:
    import pulsar

    what = f"subscription {subscription} on {topic}"
    try:
        make(topic, subscription)
    except pulsar.PulsarException as error:
        unmade = admin is not None and lacks_subscription(admin, topic, subscription)
        if is_away(type(error).__name__) and not unmade:
            raise
        return Finding(
            what=what,
            found=f"The subscription {subscription!r} on {topic} cannot be made "
            f"({meaning(type(error).__name__)}): what is sent there before it exists may be gone",
            grade=Grade.WARN,
            remedy=f"pulsar-admin topics create-subscription {topic} -s {subscription}",
        )
    return Finding(what=what, found=f"The subscription {subscription!r} on {topic} is there")
