"""Rights: what each part has to be allowed in MongoDB and Pulsar, and what of that it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom import broker, wire
from postroom.access.client import access_of
from postroom.findings import Finding, Grade
from postroom.refusals import is_away

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pulsar
    from pymongo import MongoClient

    from postroom.topics import Topic

__all__ = ["PARTS", "in_mongodb", "in_pulsar"]

# By part, by collection, as docs/security.md has them; "" stands for the database as a whole. The
# first actions are those without which the part cannot work, the second those that it needs at
# times: for what can never be sent, for pruning, to make what is not there yet.
PARTS: Mapping[str, Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "writer": {wire.OUTBOX: (("insert",), ())},
    # Besides, where it gives events a time.
    "scheduler": {
        wire.SCHEDULED: (("find", "insert", "remove", "update"), ("createIndex",)),
        wire.SCHEDULE_NAMES: (("find", "insert", "remove", "update"), ("createIndex",)),
        wire.FIRED: (("find",), ()),
    },
    "relay": {
        "": (("listCollections",), ()),
        wire.OUTBOX: (("changeStream", "find"), ("createCollection", "insert", "remove", "update")),
        wire.CHECKPOINTS: (("createIndex", "find", "insert", "update"), ()),
        wire.QUARANTINE: (("find",), ("createIndex", "insert", "remove", "update")),
        wire.PARTITIONS: ((), ("find",)),
        wire.SCHEDULED: ((), ("createIndex", "find", "remove", "update")),
        wire.SCHEDULE_NAMES: ((), ("remove",)),
        wire.FIRED: ((), ("createIndex", "find", "insert", "remove", "update")),
    },
    "consumer": {
        wire.INBOX: (("createIndex", "find", "insert", "update"), ("collMod", "remove")),
        wire.BEGUN: (("createIndex", "find", "insert", "remove", "update"), ()),
        wire.REPERTOIRES: ((), ("createIndex", "find", "insert", "update")),
    },
    # Who looks and mends does so by hand, and is told when something is refused.
    "operator": {
        wire.OUTBOX: ((), ("changeStream", "find", "insert", "remove")),
        wire.CHECKPOINTS: ((), ("find", "update")),
        wire.QUARANTINE: ((), ("find", "remove", "update")),
        wire.SCHEDULED: ((), ("find", "remove", "update")),
        wire.SCHEDULE_NAMES: ((), ("find", "remove")),
        wire.FIRED: ((), ("find",)),
        wire.INBOX: ((), ("find", "remove")),
        wire.BEGUN: ((), ("find",)),
        wire.ACTIONS: ((), ("createIndex", "find", "insert", "update")),
    },
}
BOTH = ("produce", "consume")


def in_mongodb(client: MongoClient[Any], database: str, part: str) -> list[Finding]:
    """Look whether the client's user has the rights of a part.

    Raises:
        pymongo.errors.PyMongoError: it does not answer.

    """
    status = client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    what = f"rights of the {part} in MongoDB"
    if not status["authenticatedUsers"]:
        return [Finding(what=what, found="MongoDB was not told who this is, and asks nobody")]
    user = status["authenticatedUsers"][0]
    privileges = status.get("authenticatedUserPrivileges", ())
    findings = []
    for collection, (always, at_times) in PARTS[part].items():
        allowed = _allowed(privileges, database, collection)
        for wanted, grade in ((always, Grade.FAIL), (at_times, Grade.WARN)):
            lacking = [action for action in wanted if action not in allowed]
            if lacking:
                findings.append(
                    _lacks(
                        what,
                        user,
                        database=database,
                        collection=collection,
                        actions=lacking,
                        grade=grade,
                    )
                )
    return findings or [Finding(what=what, found=f"The user {user['user']!r} has all of them")]


def _lacks(
    what: str,
    user: Mapping[str, str],
    *,
    database: str,
    collection: str,
    actions: Sequence[str],
    grade: Grade,
) -> Finding:
    where = f"{database}.{collection}" if collection else f"the database {database}"
    resource = f"{{db: '{database}', collection: '{collection}'}}"
    return Finding(
        what=what,
        found=f"The user {user['user']!r} of POSTROOM_MONGODB_URI may not "
        f"{', '.join(actions)} on {where}"
        + ("" if grade is Grade.FAIL else ", which is needed at times"),
        grade=grade,
        remedy=f"In mongosh, on {user['db']}: db.grantPrivilegesToRole('…', "
        f"[{{resource: {resource}, actions: {list(actions)}}}])",
    )


def _allowed(
    privileges: Iterable[Mapping[str, Any]], database: str, collection: str
) -> frozenset[str]:
    actions: set[str] = set()
    for privilege in privileges:
        resource = privilege["resource"]
        if resource.get("anyResource") or (
            resource.get("db") in {"", database} and resource.get("collection") in {"", collection}
        ):
            actions.update(privilege["actions"])
    return frozenset(actions)


def in_pulsar(
    client: pulsar.Client, known: Iterable[Topic], *, wanted: Sequence[str] = BOTH
) -> list[Finding]:
    """Look whether the client's role may send to topics and read them, where it has one.

    By trying: nobody who holds a topic is disturbed. What else keeps one out is found elsewhere.

    Raises:
        pulsar.PulsarException: the broker does not answer.

    """
    who = access_of(client).credentials
    return [_rights_to(client, topic, who.description(), wanted) for topic in known if who.setting]


def _rights_to(client: pulsar.Client, topic: Topic, who: str, wanted: Sequence[str]) -> Finding:
    import pulsar

    def opened(right: str) -> Any:
        if right == "produce":
            return client.create_producer(topic)
        return client.create_reader(topic, pulsar.MessageId.latest)

    lacking = []
    for right in wanted:
        try:
            broker.close(opened(right))
        except pulsar.AuthorizationError:
            lacking.append(right)
        except pulsar.PulsarException as error:
            if is_away(type(error).__name__):
                raise
    what = f"rights to {topic}"
    if not lacking:
        return Finding(what=what, found=f"{who} has {' and '.join(wanted)} on {topic}")
    return Finding(
        what=what,
        found=f"{who} lacks {' and '.join(lacking)} on {topic}",
        grade=Grade.WARN,
        remedy=f"pulsar-admin topics grant-permission {topic} --role … --actions "
        f"{','.join(lacking)}",
    )
