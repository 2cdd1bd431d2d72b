"""Selection: which topics a subscription reads, and the names of those that are its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom import abilities, errors, topics, wire
from postroom.private_text import quoted
from postroom.topics import Topic, base_topic, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from postroom.settings import Settings

__all__ = ["Selection", "dead_letter_topic", "redrive_topic"]

PATTERN = "re:"
PARTS_OF_A_NAME = 3


def dead_letter_topic(settings: Settings, topic: str, subscription: str) -> Topic:
    """Name the topic of a topic's dead letters; all partitions of a topic have the same one.

    So has the topic through which they come back.
    """
    base = base_topic(canonical(topic)).removesuffix(f"-{subscription}{wire.REDRIVE}")
    return canonical(settings.dead_letters_of(base, subscription))


def redrive_topic(topic: str, subscription: str) -> Topic:
    """Name the topic through which a topic's dead letters come back to a subscription.

    A topic of its own: the relay's fenced producers own the original one, and other subscriptions
    of it have handled the event long since.
    """
    return Topic(f"{base_topic(canonical(topic))}-{subscription}{wire.REDRIVE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The topics that a subscription reads, as named or by pattern.

    Never among them are dead letters, what comes back of them, and the topics on which a relay
    tries what the broker can do: a subscription that read its own dead letters would make dead
    letters of them for ever.
    """

    subscription: str
    names: tuple[Topic, ...]
    patterns: tuple[TopicPattern, ...]
    dead_letters: Topic | None = None

    @classmethod
    def of(cls, settings: Settings, subscription: str, written: Sequence[str]) -> Selection:
        """Read what a user has written: names, or patterns that begin with `re:`.

        Raises:
            ConfigurationError: it names no topic, or one that cannot be consumed.

        """
        _require_topics(subscription, written)
        shared = settings.dead_letter_topic
        _require_fit_for_letters(shared)
        found = cls(
            subscription=subscription,
            names=tuple(dict.fromkeys(canonical(t) for t in written if not t.startswith(PATTERN))),
            patterns=tuple(TopicPattern.of(t) for t in written if t.startswith(PATTERN)),
            dead_letters=canonical(shared) if shared else None,
        )
        for topic in found.names:
            if found.is_reserved(topic):
                raise errors.ConfigurationError(
                    f"The subscription {subscription!r} cannot consume {topic}: dead letters, and "
                    "what is put back of them, are read by `dead-letters list` and `redrive`. "
                    "Take it out of install(consume=…)"
                )
        return found

    @property
    def namespaces(self) -> list[str]:
        """The namespaces, as tenant/namespace, in which patterns look for topics."""
        return list(dict.fromkeys(pattern.namespace for pattern in self.patterns))

    @property
    def redrives(self) -> list[Topic]:
        """The topics through which dead letters of the named topics come back."""
        return list(dict.fromkeys(redrive_topic(t, self.subscription) for t in self.names))

    def among(self, found: Iterable[str]) -> list[Topic]:
        """Pick from the topics of a namespace those that a pattern selects, or that come back."""
        return [canonical(topic) for topic in found if self._selects(canonical(topic))]

    def reads(self, topic: Topic) -> bool:
        """Say whether a topic is among those that are read, named or by a pattern."""
        return topic in self.names or base_topic(topic) in self.names or self._selects(topic)

    def is_reserved(self, topic: Topic) -> bool:
        """Say whether a topic is one of our own, which is never consumed like others."""
        base = base_topic(topic)
        return (
            base.endswith((wire.DEAD, wire.REDRIVE))
            or base == self.dead_letters
            or base.rpartition("/")[2].startswith(abilities.PROBE)
        )

    def _selects(self, topic: Topic) -> bool:
        ending = f"-{self.subscription}{wire.REDRIVE}"
        if base_topic(topic).endswith(ending):
            came_from = Topic(base_topic(topic).removesuffix(ending))
            return any(pattern.fits(came_from) for pattern in self.patterns)
        if self.is_reserved(topic):
            return False
        return any(pattern.fits(topic) for pattern in self.patterns)


def _require_topics(subscription: str, written: Sequence[str]) -> None:
    if isinstance(written, str) or not written:
        raise errors.ConfigurationError(
            f"install(consume=…) gives the subscription {subscription!r} {quoted(written)}, and "
            "has to give it a list of topics"
        )
    for topic in written:
        try:
            if not str(topic).startswith(PATTERN):
                topics.checked(topic)
        except (TypeError, ValueError):
            raise errors.ConfigurationError(
                f"install(consume=…) names {quoted(topic)} for the subscription {subscription!r}: "
                "a topic is named tenant/namespace/topic, and a pattern re:tenant/namespace/pattern"
            ) from None


def _require_fit_for_letters(shared: str | None) -> None:
    if shared is None:
        return
    base = base_topic(shared)
    ours = base.endswith(wire.REDRIVE) or base.rpartition("/")[2].startswith(abilities.PROBE)
    if ours or base != shared:
        raise errors.ConfigurationError(
            f"POSTROOM_DEAD_LETTER_TOPIC is {shared!r}, which is one partition of a topic, or a "
            "topic that consumers or relays use otherwise: what is given up could come round for "
            "ever. Name a topic of its own"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicPattern:
    """A regular expression of topics' own names within one namespace."""

    namespace: str
    local: re.Pattern[str]

    @classmethod
    def of(cls, written: str) -> TopicPattern:
        """Read `re:tenant/namespace/expression`; tenant and namespace are literal.

        Raises:
            ConfigurationError: it has another form, or the expression is none.

        """
        parts = written.removeprefix(PATTERN).removeprefix("persistent://").split("/", 2)
        literal = all(re.fullmatch(r"[\w.=:-]+", part) for part in parts[:2])
        if len(parts) != PARTS_OF_A_NAME or not (literal and parts[-1]):
            raise errors.ConfigurationError(
                f"The pattern {quoted(written)} is not of the form re:tenant/namespace/expression"
            )
        tenant, namespace, local = parts
        try:
            return cls(namespace=f"{tenant}/{namespace}", local=re.compile(local))
        except re.error as error:
            raise errors.ConfigurationError(
                f"The pattern {quoted(written)} is no regular expression: {error}"
            ) from None

    def fits(self, topic: Topic) -> bool:
        """Say whether a topic, or the one whose topic partition it is, has such a name."""
        return any(
            namespace == f"persistent://{self.namespace}" and self.local.fullmatch(name)
            for namespace, _, name in (t.rpartition("/") for t in (topic, base_topic(topic)))
        )
