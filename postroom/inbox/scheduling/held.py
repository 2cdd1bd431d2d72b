"""Held: a delivery that is not acknowledged yet, and how far its handlers have come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from postroom.failures import Kind
from postroom.inbox.handling.outcome import GiveUp, TryAgain

if TYPE_CHECKING:
    from postroom.events import Event
    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.scheduling.delivery import Delivery

__all__ = ["Failures", "Held"]


@dataclass(slots=True)
class Failures:
    """How often and when a handler has failed with one event, and why the last time.

    `conflicts_since` is when the conflicts began that it meets though it is the only one at work:
    they end by themselves, or are the handler's own. `due` is the monotonic time of the next try.
    """

    attempts: int = 0
    first: datetime | None = None
    last: datetime | None = None
    reason: str = ""
    conflicts_since: datetime | None = None
    due: float = 0.0

    def add(self, outcome: TryAgain | GiveUp) -> None:
        """Note a failure now; one that does not count leaves the attempts as they are."""
        self.last = datetime.now(UTC)
        self.first = self.first or self.last
        self.attempts += isinstance(outcome, GiveUp) or outcome.counts
        self.reason = outcome.reason
        if isinstance(outcome, TryAgain):
            self.due = time.monotonic() + outcome.after_seconds
        if isinstance(outcome, TryAgain) and outcome.kind is Kind.CONFLICT:
            if outcome.sole:
                self.conflicts_since = self.conflicts_since or self.last
        else:
            self.conflicts_since = None


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
        return self.delivery.order

    def failed(self, handler: Handler | None, outcome: TryAgain | GiveUp) -> None:
        """Note a failure of a handler, or of reading the event at all."""
        self.failures.setdefault(handler.name if handler else "", Failures()).add(outcome)

    def done_by(self, handler: Handler | None) -> bool:
        """Note that a handler is done with it, and say whether all are."""
        self.waiting_for.discard(handler.name if handler else "")
        return not self.waiting_for
