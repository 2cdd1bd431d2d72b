"""Routing: which topic an event goes to, and under which key; one rule for writers and relay.

The key is the first of these that is there:

1. the row's own `key`, which `Outbox` writes and other programs may;
2. what the event's class says: `class MedicineAssigned(DomainEvent, key="patient_id")`;
3. what `Outbox(key=…)` says where an event is published, and `install(key=…)` where one is relayed
   whose row brings none: a field of the data, or a function of name and data.

A class that names its key decides, also where the field is null: such an event has none. A key is
text: what the value is in JSON. Functions see the data as MongoDB gives them back, on both sides:
dates are UTC without saying so, in milliseconds; decimals are Decimal128.
"""

from __future__ import annotations

import copy
import re
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from sys import intern
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

from postroom import errors, events
from postroom.envelope import Envelopes
from postroom.passing import passes
from postroom.private_text import quoted
from postroom.topics import Topic, base_topic, canonical, topic_partition

if TYPE_CHECKING:
    from postroom.cloud_events import CloudEvents

__all__ = ["Key", "Routing", "Topics"]

Topics = Mapping[str, str] | Callable[[str, Mapping[str, Any]], str | None]
Key = str | Callable[[str, Mapping[str, Any]], Any]

# As Pulsar takes tenants and namespaces; a fourth part made clusters of its old names.
FULL_NAME = re.compile(r"persistent://[\w.=:-]+/[\w.=:-]+/[^/\s]+", re.ASCII)
LONGEST = 500
# Topics are few; a function that makes up ever new ones is to cost no memory without end.
MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Division:
    """How many topic partitions topics have, and which of them one outbox partition goes to."""

    count: int
    index: int | None = None


class _Answers:
    """Which topics were found, by events' names and by what the function has answered."""

    def __init__(self) -> None:
        self.of_names: dict[str, Topic] = {}
        self.of_answers: dict[str, Topic] = {}


class Routing:
    """Answers for each event with a topic and a key.

    Safe from any thread: what it remembers only saves asking again.

    `topics` maps names, or patterns as in the shell, to topics: an exact name wins over patterns,
    an earlier pattern over a later one, and what matches none goes to `default`. It may be a
    function of the event's name and data instead; None from it means `default`. `shared` names the
    topics, or patterns of them, that other producers send to as well. `key` is the field
    of the data that holds the key, or a function likewise. `cloud_events` is what messages say of
    themselves, if anything, `envelopes` what keeps brokers from reading them. `partitions` is how
    many topic partitions each topic has, as many as the outbox has outbox partitions; with one,
    topics have none.

    Raises:
        ConfigurationError: a topic has no name that Pulsar could take.

    """

    def __init__(
        self,
        *,
        default: str,
        topics: Topics,
        key: Key | None,
        shared: Iterable[str] = (),
        cloud_events: CloudEvents | None = None,
        read_by_failover: Callable[[Topic], frozenset[str]] = lambda _: frozenset(),
        partitions: int = 1,
        envelopes: Envelopes | None = None,
    ) -> None:
        self.cloud_events = cloud_events
        self.envelopes = envelopes or Envelopes()
        # The subscriptions that the application declares for a topic, where all are Failover.
        self.read_by_failover = read_by_failover
        self._division = _Division(count=partitions)
        self.default = _configured(default)
        self._topics = topics
        self._key = key
        self._shared = [canonical(topic) for topic in shared]
        named = topics.values() if isinstance(topics, Mapping) else ()
        self._named = sorted({self.default, *map(_configured, named)})
        self._answers = _Answers()

    @property
    def partitions(self) -> int:
        """How many topic partitions each topic has; with one, topics have none."""
        return self._division.count

    def toward(self, index: int | None) -> Routing:
        """Return the routing of one outbox partition: to that topic partition of every topic.

        None stands for whole topics.
        """
        if index is None:
            return self
        aimed = copy.copy(self)
        aimed.aim(index)
        return aimed

    def aim(self, index: int) -> None:
        """Name that topic partition of every topic from now on, before anything was routed."""
        self._division = _Division(count=self.partitions, index=index)
        self.default = self._aimed(self.default)
        self._named = [self._aimed(topic) for topic in self._named]
        self._answers = _Answers()

    def _aimed(self, topic: Topic) -> Topic:
        index = self._division.index
        return topic if index is None else Topic(intern(topic_partition(topic, index)))

    @property
    def keyed(self) -> bool:
        """Whether all events are keyed by rule, besides those whose rows or classes bring a key."""
        return self._key is not None

    @property
    def topics(self) -> list[Topic]:
        """All topics that are known beforehand; a function may name others."""
        return self._named

    @property
    def has_shared(self) -> bool:
        """Whether any topic has other producers."""
        return bool(self._shared)

    def is_shared(self, topic: Topic) -> bool:
        """Say whether other producers send to this topic too, so that it cannot be fenced."""
        whole = topic if self._division.index is None else base_topic(topic)
        return any(fnmatchcase(whole, pattern) for pattern in self._shared)

    def topic(self, name: str, data: Mapping[str, Any]) -> Topic:
        """Name the topic of an event, in full; one topic is one object.

        Raises:
            Poison: the routing function failed over this event, or named no topic.
            RoutingFailed: it failed for a reason that passes; it is to be asked again.

        """
        known = self._answers.of_names.get(name)
        if known is not None:
            return known
        if not isinstance(self._topics, Mapping):
            return self._answered(_called(self._topics, "routing", name, data), name)
        matched = self._matched(self._topics, name)
        found = self.default if matched is None else self._aimed(_configured(matched))
        _remember(self._answers.of_names, name, found)
        return found

    def _matched(self, topics: Mapping[str, str], name: str) -> str | None:
        exact = topics.get(name)
        if exact is not None:
            return exact
        matches = (topic for pattern, topic in topics.items() if fnmatchcase(name, pattern))
        return next(matches, None)

    def _answered(self, answer: object, name: str) -> Topic:
        if answer is None or answer == "":
            return self.default
        if not isinstance(answer, str):
            raise errors.Poison(
                f"The routing function named no topic for {_short(name)}, but a "
                f"{type(answer).__name__}"
            )
        found = self._answers.of_answers.get(answer)
        if found is None:
            found = Topic(intern(canonical(answer)))
            if not _is_name(found):
                raise errors.Poison(
                    f"What the routing function named for {_short(name)} is no topic that keeps "
                    "events: that is called tenant/namespace/name, or persistent:// and that"
                )
            found = self._aimed(found)
            _remember(self._answers.of_answers, answer, found)
        return found

    def key_rule(self, name: str) -> Key | None:
        """Return what says the key of an event whose row brings none: a field or a function.

        Raises:
            ConfigurationError: the event's class says so, but cannot be read.

        """
        return events.key_field(name) or self._key

    def key(self, name: str, data: Mapping[str, Any]) -> str | None:
        """Name the key of an event whose row brings none, or None.

        Raises:
            Poison: the key function failed over this event, the key has no form in JSON, or the
                event's class, which says the key, cannot be read.
            RoutingFailed: it failed for a reason that passes; it is to be asked again.

        """
        try:
            field = self.key_rule(name)
        except errors.ConfigurationError as error:
            raise errors.Poison(f"{_short(name)} has no key that can be found: {error}") from None
        if field is None:
            return None
        value = data.get(field) if isinstance(field, str) else _called(field, "key", name, data)
        return value if type(value) is str and value.isascii() else _text(value, name)


def _text(value: object, name: str) -> str | None:
    try:
        return events.text(value)
    except errors.Poison as poison:
        raise errors.Poison(f"The key of {_short(name)} cannot be one: {poison}") from None


def _called(
    function: Callable[[str, Mapping[str, Any]], Any],
    kind: str,
    name: str,
    data: Mapping[str, Any],
) -> object:
    try:
        return function(name, data)
    except (Exception, SystemExit, CancelledError) as error:
        if isinstance(error, SystemExit) and current_thread() is main_thread():
            raise  # a handler of signals runs there, in the midst of anything
        failed = f"The {kind} function failed with {type(error).__name__} for {_short(name)}"
        if passes(error):
            raise errors.RoutingFailed(f"{failed}, and is asked again") from error
        raise errors.Poison(failed) from error


def _configured(topic: object) -> Topic:
    found = canonical(topic) if isinstance(topic, str) else None
    if found is None or not _is_name(found):
        raise errors.ConfigurationError(
            f"{quoted(topic)} is no topic that keeps events: it is called tenant/namespace/name, "
            "or persistent:// and that. Nothing was started"
        )
    return Topic(intern(found))


def _is_name(topic: str) -> bool:
    if FULL_NAME.fullmatch(topic) is None or len(topic) > LONGEST or not topic.isprintable():
        return False
    try:
        topic.encode()
    except UnicodeEncodeError:
        return False
    return True


def _remember(remembered: dict[str, Topic], name: str, topic: Topic) -> None:
    if len(remembered) >= MOST_REMEMBERED:
        remembered.clear()
    remembered[name] = topic


def _short(name: str) -> str:
    return repr(name[:100])
