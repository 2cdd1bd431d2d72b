"""Preflight: what relay and consumer look at before they start, as a list of findings.

A finding says what was seen, whether that is well, and the remedy. Start-up logs and obeys the
list; whoever wants to know prints it.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom import broker, errors
from postroom.abilities import PROBE
from postroom.store import clients
from postroom.topics import Topic, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pulsar
    from pymongo import MongoClient

    from postroom.abilities import Abilities
    from postroom.pulsar_admin import PulsarAdmin

__all__ = [
    "Finding",
    "Grade",
    "MakeSubscription",
    "delivery",
    "mongodb",
    "obey",
    "retention",
    "subscriptions",
    "topics",
]

logger = logging.getLogger(__name__)

# Makes a subscription on a topic, unless it is there.
MakeSubscription = Callable[[Topic, str], None]


class Grade(enum.Enum):
    """How well something is."""

    OK = "ok"
    WARN = "warn"  # it works, and a promise is weaker than it might be
    FAIL = "fail"  # it cannot work like this


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: `what` was seen, in a sentence, and the `remedy` if any.

    `lasting` says of a failure that no wait can mend it: whoever started it has to.
    """

    what: str
    grade: Grade = Grade.OK
    remedy: str = ""
    lasting: bool = False

    @property
    def sentence(self) -> str:
        """What was seen and what to do, as one text."""
        return f"{self.what}. {self.remedy}" if self.remedy else self.what


def obey(findings: Iterable[Finding], *, action: str = "preflight") -> None:
    """Log what is less than well, and refuse to go on with what cannot work.

    Raises:
        ConfigurationError: a finding has failed for good.
        ServiceUnavailable: one has failed, and may be mended while this one waits.

    """
    findings = list(findings)
    for finding in findings:
        if finding.grade is Grade.WARN:
            logger.warning("%s", finding.sentence, extra={"action": action})
    for finding in sorted(findings, key=lambda found: not found.lasting):
        if finding.grade is Grade.FAIL:
            kind = errors.ConfigurationError if finding.lasting else errors.ServiceUnavailable
            raise kind(finding.sentence)


def mongodb(client: MongoClient[Any]) -> list[Finding]:
    """Look whether MongoDB has transactions and change streams, and is recent enough.

    Raises:
        pymongo.errors.PyMongoError: it does not answer.

    """
    try:
        clients.require_fit_server(client)
    except errors.ServiceUnavailable as error:
        return [Finding(what=str(error), grade=Grade.FAIL)]
    return [Finding(what="MongoDB is recent enough and a replica set or a sharded cluster")]


def topics(client: pulsar.Client, known: Iterable[Topic]) -> list[Finding]:
    """Look whether the topics that are known beforehand are there and one log each.

    Raises:
        pulsar.PulsarException: the broker does not answer.

    """
    return [_topic(client, topic) for topic in known]


def _topic(client: pulsar.Client, topic: Topic) -> Finding:
    import pulsar

    try:
        broker.require_unpartitioned(client, topic)
    except errors.PartitionedTopic as error:
        return Finding(what=str(error), grade=Grade.FAIL, lasting=True)
    except pulsar.TopicNotFound:
        return Finding(
            what=f"There is no topic {topic}, and the broker makes none by itself",
            grade=Grade.WARN,
            remedy=f"Make it: pulsar-admin topics create {topic}",
        )
    except pulsar.AuthorizationError:
        return Finding(
            what=f"The relay has no right to the topic {topic}",
            grade=Grade.WARN,
            remedy="Grant its role produce and consume (pulsar-admin topics grant-permission)",
        )
    return Finding(what=f"The topic {topic} is there, and one log")


def delivery(found: Abilities, *, demanded: bool, has_shared: bool, where: str) -> list[Finding]:
    """Judge what a broker can do; `demanded` says that exactly once is to be had or nothing."""
    findings = []
    if lacking := _lacking(found):
        findings.append(_cannot(lacking, where) if demanded else _weaker(lacking, found))
    else:
        findings.append(Finding(what="The broker fences and deduplicates"))
    if has_shared and demanded:
        findings.append(
            Finding(
                what="POSTROOM_DELIVERY is exactly_once, but install(shared=…) names topics with "
                "other producers, which cannot be fenced. Nothing is relayed",
                grade=Grade.FAIL,
                remedy="Leave them out, or choose best_available",
                lasting=True,
            )
        )
    return findings


def _cannot(lacking: str, where: str) -> Finding:
    return Finding(
        what=f"POSTROOM_DELIVERY is exactly_once, but the broker at {where} lacks {lacking}. "
        "Nothing is relayed",
        grade=Grade.FAIL,
        remedy="Turn it on, or choose best_available",
        lasting=True,
    )


def _weaker(lacking: str, found: Abilities) -> Finding:
    made = "".join(f"; to have it tried, make {space}/{PROBE}" for space in found.unknown)
    return Finding(
        what=f"The broker lacks {lacking}: every event still arrives, in order, but a frozen relay "
        "that wakes up or a lost connection may send some twice",
        grade=Grade.WARN,
        remedy="Deduplication is turned on for the namespace (pulsar-admin namespaces "
        "set-deduplication -e); fencing comes with Apache Pulsar 2.8 and later" + made,
    )


def _lacking(found: Abilities) -> str:
    missing = [
        name
        for name, there in (("fencing", found.fencing), ("deduplication", found.deduplication))
        if not there
    ]
    if found.unknown:
        missing.append(f"a topic {PROBE} to try that on in {', '.join(found.unknown)}")
    return " and ".join(missing)


def retention(admin: PulsarAdmin, known: Iterable[Topic]) -> list[Finding]:
    """Look for how long the topics' namespaces keep what was acknowledged, where that is told."""
    findings = []
    for namespace in sorted({topic.partition("://")[2].rpartition("/")[0] for topic in known}):
        minutes = admin.keeps_for_minutes(namespace)
        if minutes == 0:
            findings.append(
                Finding(
                    what=f"The namespace {namespace} keeps nothing that all subscriptions have "
                    "acknowledged: where the broker restarts in the very moment in which a relay "
                    "is replaced, the next one cannot see what was sent, and sends it again",
                    grade=Grade.WARN,
                    remedy=f"pulsar-admin namespaces set-retention {namespace} --time 1h --size 1G",
                )
            )
        elif minutes is not None:
            kept = "for ever" if minutes < 0 else f"for {minutes} minutes"
            findings.append(Finding(what=f"The namespace {namespace} keeps what was sent {kept}"))
    return findings


def subscriptions(wanted: Mapping[str, Sequence[str]], make: MakeSubscription) -> list[Finding]:
    """Have the subscriptions made that consumers will use, and say which could not be.

    Raises:
        pulsar.PulsarException: the broker does not answer.

    """
    return [
        _subscription(subscription, canonical(topic), make)
        for subscription, names in wanted.items()
        for topic in names
        if not topic.startswith("re:")
    ]


def _subscription(subscription: str, topic: Topic, make: MakeSubscription) -> Finding:
    import pulsar

    try:
        make(topic, subscription)
    except (pulsar.TopicNotFound, pulsar.AuthorizationError, pulsar.TopicTerminated) as error:
        return Finding(
            what=f"The subscription {subscription!r} on {topic} cannot be made "
            f"({type(error).__name__}): what is sent there before it exists may be gone",
            grade=Grade.WARN,
            remedy=f"pulsar-admin topics create-subscription {topic} -s {subscription}",
        )
    return Finding(what=f"The subscription {subscription!r} on {topic} is there")
