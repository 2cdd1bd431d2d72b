"""Routing: which topic an event goes to, and under which key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from postroom import errors
from postroom.topics import Topic, canonical

__all__ = ["Key", "Routing", "Topics"]

Topics = Mapping[str, str] | Callable[[str, Mapping[str, Any]], str | None]
Key = str | Callable[[str, Mapping[str, Any]], str | None]


class Routing:
    """Answers for each event with a topic and a key.

    `topics` maps names, or patterns as in the shell, to topics: an exact name wins over patterns,
    an earlier pattern over a later one, and what matches none goes to `default`. It may be a
    function of the event's name and data instead; None from it means `default`. `shared` names the
    topics, or patterns of them, that other producers send to as well. `key` is the field
    of the data that holds the key, or a function likewise.
    """

    def __init__(
        self, *, default: str, topics: Topics, key: Key | None, shared: Iterable[str] = ()
    ) -> None:
        self.default = canonical(default)
        self._topics = topics
        self._key = key
        self._shared = [canonical(topic) for topic in shared]
        self._known: dict[str, Topic] = {}

    @property
    def keyed(self) -> bool:
        """Whether events are keyed by rule, besides those whose rows bring a key."""
        return self._key is not None

    @property
    def topics(self) -> list[Topic]:
        """All topics that are known beforehand; a function may name others."""
        named = self._topics.values() if isinstance(self._topics, Mapping) else ()
        return sorted({self.default, *map(canonical, named)})

    @property
    def has_shared(self) -> bool:
        """Whether any topic has other producers."""
        return bool(self._shared)

    def is_shared(self, topic: Topic) -> bool:
        """Say whether other producers send to this topic too, so that it cannot be fenced."""
        return any(fnmatchcase(topic, pattern) for pattern in self._shared)

    def topic(self, name: str, data: Mapping[str, Any]) -> Topic:
        """Name the topic of an event, in full.

        Raises:
            Poison: the routing function failed.

        """
        known = self._known.get(name)
        if known is not None:
            return known
        if not isinstance(self._topics, Mapping):
            return self._called(self._topics, name, data)
        found = self._known[name] = canonical(self._matched(self._topics, name))
        return found

    def _matched(self, topics: Mapping[str, str], name: str) -> str:
        exact = topics.get(name)
        if exact is not None:
            return exact
        matches = (topic for pattern, topic in topics.items() if fnmatchcase(name, pattern))
        return next(matches, self.default)

    def _called(
        self,
        topics: Callable[[str, Mapping[str, Any]], str | None],
        name: str,
        data: Mapping[str, Any],
    ) -> Topic:
        try:
            return canonical(topics(name, data) or self.default)
        except Exception as error:
            raise errors.Poison(
                f"The routing function failed with {type(error).__name__} for {name!r}"
            ) from error

    def key(self, name: str, data: Mapping[str, Any]) -> str | None:
        """Name the key of an event whose row brings none, or None.

        Raises:
            Poison: the key function failed.

        """
        if self._key is None:
            return None
        if isinstance(self._key, str):
            value = data.get(self._key)
        else:
            value = self._key_called(self._key, name, data)
        return value if value is None or isinstance(value, str) else str(value)

    def _key_called(
        self,
        key: Callable[[str, Mapping[str, Any]], Any],
        name: str,
        data: Mapping[str, Any],
    ) -> Any:
        try:
            return key(name, data)
        except Exception as error:
            raise errors.Poison(
                f"The key function failed with {type(error).__name__} for {name!r}"
            ) from error
