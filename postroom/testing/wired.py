"""Wired: where the events of a test go, and who reads them; each topic is the test's own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from postroom.inbox.handling.handlers import registry
from postroom.routing import Routing
from postroom.topics import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postroom.routing import Key, Topics
    from postroom.settings import Settings

__all__ = ["Wired", "Wiring"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """What install() is given: `topics`, `key`, and `consume` (which subscription reads what).

    Without `consume` each subscription that a handler names reads all topics, and so does one for
    the handlers that name none.
    """

    topics: Topics = field(default_factory=dict)
    key: Key | None = None
    consume: Mapping[str, Sequence[str]] | None = None

    @classmethod
    def of(cls, given: Any) -> Wired:
        """Take it as it is, or from what install() has returned (`app.postroom`)."""
        if isinstance(given, cls):
            return given
        return cls(topics=given.topics or {}, key=given.key, consume=given.consume)


class Wiring:
    """The routing of one test. Topics are told by their own names, and are others at the broker."""

    def __init__(self, wired: Wired, settings: Settings, *, default: str, own: str) -> None:
        self._wired = wired
        self._default = canonical(default)
        self._subscription = settings.subscription
        self._own = own
        self._envelopes = settings.envelopes
        self.routing = Routing(
            default=self._default,
            topics=wired.topics,
            key=wired.key,
            cloud_events=settings.cloud_events_of_database,
            envelopes=self._envelopes,
        )

    def at_broker(self, topic: str) -> str:
        """Return the name by which the broker knows a topic in this test."""
        short = re.sub(r"[^\w.-]", "-", canonical(topic).partition("://")[2])
        return f"persistent://public/default/{self._own}-{short}"

    def readers(self, topic: str) -> list[str]:
        """Name the subscriptions that read a topic."""
        consume = self._wired.consume
        if consume is None:
            named = {each.subscription for each in registry.handlers.values()}
            return sorted({each or self._subscription for each in named})
        return [name for name, read in consume.items() if any(_reads(each, topic) for each in read)]


def _reads(pattern: str, topic: str) -> bool:
    full = canonical(topic)
    if not pattern.startswith("re:"):
        return canonical(pattern) == full
    return re.fullmatch(pattern.removeprefix("re:"), full) is not None or (
        re.fullmatch(pattern.removeprefix("re:"), full.partition("://")[2]) is not None
    )
