"""Held: a delivery that is not acknowledged yet, and how far its handlers have come."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from postroom.events import Event
    from postroom.inbox.delivery import Delivery
    from postroom.inbox.handlers import Handler

__all__ = ["Failures", "Held"]


@dataclass(slots=True)
class Failures:
    """How often and when a handler has failed with one event."""

    attempts: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, *, counts: bool) -> None:
        """Note a failure now; one that does not count leaves the attempts as they are."""
        self.last = datetime.now(UTC)
        self.first = self.first or self.last
        self.attempts += counts


@dataclass(slots=True, eq=False)
class Held:
    """A delivery in the dispatcher's hands, and in no other thread's.

    `handlers` are all that want its event; `waiting_for` are the names of those that are not done
    with it. What is `noted` may have been held by a worker that was ended.
    """

    delivery: Delivery
    event: Event[dict[str, Any]] | None = None
    handlers: list[Handler] = field(default_factory=list)
    waiting_for: set[str] = field(default_factory=set)
    failures: dict[str, Failures] = field(default_factory=dict)
    noted: bool = False

    @property
    def key(self) -> str | None:
        """What it is put in order by."""
        return self.delivery.key

    def failed(self, handler: Handler | None, *, counts: bool) -> Failures:
        """Note a failure of a handler, or of reading the event at all."""
        found = self.failures.setdefault(handler.name if handler else "", Failures())
        found.add(counts=counts)
        return found

    def done_by(self, handler: Handler | None) -> bool:
        """Note that a handler is done with it, and say whether all are."""
        self.waiting_for.discard(handler.name if handler else "")
        return not self.waiting_for
