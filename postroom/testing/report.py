"""Report: what drain() has relayed and consumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from postroom.testing.handling import handler_of
from postroom.testing.published import described, known_kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.testing.published import Kind, Published

__all__ = ["DeadLetter", "Drained", "Handled", "Quarantined", "Relayed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """An event that went to a topic."""

    event: Published
    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """An event that a handler has handled, at the `attempts`-th attempt.

    `repeated` where the inbox knew that it had been handled before: the handler was not called.
    """

    event: Published
    handler: str
    subscription: str
    attempts: int
    repeated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that a handler has given up, and why; with no handler where nobody could read it."""

    event: Published
    handler: str
    subscription: str
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A row of the outbox that can never be sent, and why."""

    row_id: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Drained:
    """What happened, each list in the order in which it did.

    `ignored` are events that no handler of a subscription wants.
    """

    published: list[Relayed] = field(default_factory=list)
    handled: list[Handled] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    ignored: list[Published] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)

    def handled_by(self, handler: str | Callable[..., Any]) -> list[Published]:
        """Return the events that a handler, by its name or function, has handled."""
        name = handler_of(handler).name
        return [each.event for each in self.handled if each.handler == name]

    def assert_published(self, kind: Kind, /, **fields: Any) -> Published:
        """Make sure that such an event was relayed, and return it.

        Raises:
            AssertionError: none was; the sentence says what was.

        """
        __tracebackhide__ = True
        known_kind(kind, fields)
        found = [each.event for each in self.published if each.event.fits(kind, fields)]
        if not found:
            raise AssertionError(f"{described(kind, fields)} was not relayed. {self}")
        return found[0]

    def assert_no_dead_letters(self) -> None:
        """Make sure that every event was handled and every row could be sent.

        Raises:
            AssertionError: one was not; the sentence says why.

        """
        __tracebackhide__ = True
        if self.dead_letters or self.quarantined:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        """Say it in lines."""
        lines = [f"Relayed: {each.event} to {each.topic}" for each in self.published]
        lines += [f"Handled: {each.event} by {each.handler}" for each in self.handled]
        lines += [f"Ignored: {each}" for each in self.ignored]
        lines += [f"Dead letter of {e.handler}: {e.event}: {e.reason}" for e in self.dead_letters]
        lines += [f"Quarantined: row {e.row_id}: {e.reason}" for e in self.quarantined]
        return "\n".join(lines) or "Nothing waited."
