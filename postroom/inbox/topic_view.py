"""Topics and their subscriptions seen from outside, by Pulsar's admin interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from postroom import errors
from postroom.access import pulsar as pulsar_access
from postroom.inbox.parking.letters import SUBSCRIPTION
from postroom.inbox.receiving.directory import topics_of
from postroom.inbox.receiving.selection import Selection, dead_letter_topic
from postroom.pulsar_admin import PulsarAdmin
from postroom.topics import Topic, base_topic, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from postroom.settings import Settings

__all__ = ["DEAD", "EVENTS", "Subscription", "TopicRow", "Topics"]

# What a topic is for.
EVENTS, DEAD = "events", "dead letters"

LISTING_SECONDS = 3.0
# Each is two requests at most, of two seconds at most where nothing answers.
MOST_TOPICS = 200
UNANSWERED = (
    "Pulsar's admin interface (POSTROOM_PULSAR_ADMIN_URL) does not tell of {topics}: it does not "
    "answer, or does not let this user in. Backlogs and consumers are not known; relaying and "
    "consuming do not need it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One subscription: its type and consumers, and what none of them has acknowledged yet.

    `ours` where the application reads the topic by it, or finds its dead letters there.
    """

    name: str
    ours: bool
    type: str
    consumers: Sequence[str]
    backlog: int
    oldest_seconds: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRow:
    """One topic; `exists` is False where there is none of the name, None where nobody tells.

    `role` says what it is for: events, or dead letters.
    """

    topic: Topic
    role: str
    exists: bool | None
    partitions: int | None = None
    rate_in: float | None = None
    subscriptions: Sequence[Subscription] = ()


class Topics:
    """Asks about the topics that an application relays to and consumes; used by one thread."""

    def __init__(
        self, settings: Settings, *, routed: Iterable[str], consumed: Mapping[str, Sequence[str]]
    ) -> None:
        self._settings = settings
        self._routed = routed
        self._consumed = consumed
        self._access = pulsar_access.of(self._settings)
        self._admin = PulsarAdmin(self._access)

    def look(self, relayed: Iterable[str]) -> list[TopicRow]:
        """Return the topics that are consumed, and those of `relayed`, each with its dead letters.

        Raises:
            ServiceUnavailable: the admin interface tells of none of them.

        """
        rows: list[TopicRow] = []
        for topic, (role, ours) in list(self._named(relayed).items())[:MOST_TOPICS]:
            rows.append(self._row(topic, role, ours))
            if rows[0].exists is None:
                raise errors.ServiceUnavailable(UNANSWERED.format(topics=rows[0].topic))
        return rows

    def _named(self, relayed: Iterable[str]) -> dict[Topic, tuple[str, set[str]]]:
        """Return what each topic is for, and the subscriptions by which it is read here."""
        events = [*self._routed, *relayed]
        named: dict[Topic, tuple[str, set[str]]] = {
            base_topic(canonical(topic)): (EVENTS, set()) for topic in events
        }
        dead: dict[Topic, tuple[str, set[str]]] = {}
        for subscription, written in self._consumed.items():
            for topic in self._read_by(subscription, written):
                named.setdefault(topic, (EVENTS, set()))[1].add(subscription)
                letters = dead_letter_topic(self._settings, topic, subscription)
                dead[letters] = (DEAD, {SUBSCRIPTION})
        return {**named, **dead}

    def _read_by(self, subscription: str, written: Sequence[str]) -> list[Topic]:
        selection = Selection.of(self._settings, subscription, written)
        found = list(selection.names)
        for namespace in selection.namespaces:
            try:
                there = topics_of(self._access, namespace, timeout_seconds=LISTING_SECONDS)
            except errors.ServiceUnavailable:
                continue  # the named ones are shown all the same
            found += selection.among(there)
        return list(dict.fromkeys(base_topic(topic) for topic in found))

    def _row(self, topic: Topic, role: str, ours: set[str]) -> TopicRow:
        told = self._admin.statistics(topic)
        if not told:
            return TopicRow(topic=topic, role=role, exists=None if told is None else False)
        partitions = told.get("partitions")
        subscriptions = told.get("subscriptions")
        return TopicRow(
            topic=topic,
            role=role,
            exists=True,
            partitions=len(partitions) if isinstance(partitions, Mapping) else None,
            rate_in=_number(told.get("msgRateIn")),
            subscriptions=[
                _subscription(name, each, ours=name in ours)
                for name, each in sorted(subscriptions.items())
                if isinstance(each, Mapping)
            ]
            if isinstance(subscriptions, Mapping)
            else [],
        )


def _subscription(name: str, told: Mapping[str, Any], *, ours: bool) -> Subscription:
    backlog = int(_number(told.get("msgBacklog")) or 0)
    consumers = told.get("consumers")
    return Subscription(
        name=name,
        ours=ours,
        type=str(told.get("type") or "nobody has subscribed yet"),
        consumers=[
            str(each.get("consumerName", ""))
            for each in (consumers if isinstance(consumers, list) else ())
            if isinstance(each, Mapping)
        ],
        backlog=backlog,
        oldest_seconds=_age(told.get("earliestMsgPublishTimeInBacklog")) if backlog else None,
    )


def _age(milliseconds: Any) -> int | None:
    """Return the seconds since a time in milliseconds; the broker tells 0 or -1 for none."""
    at = _number(milliseconds)
    if at is None or at <= 0:
        return None
    return max(0, int(datetime.now(UTC).timestamp() - at / 1000))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
