"""Conflicts: which handlers' jobs stand in each other's way, and what follows from that."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from postroom.failures import Kind
from postroom.inbox.handling.outcome import Applied, Shared, TryAgain
from postroom.inbox.scheduling.contention import Contention

if TYPE_CHECKING:
    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.handling.job import Job
    from postroom.inbox.handling.outcome import Outcome
    from postroom.inbox.scheduling.underway import Underway

__all__ = ["Conflicts"]

# For how long a handler's events are handled each by itself behind a conflict of a group.
APART_SECONDS = 10.0


class Conflicts:
    """The contention of each handler, and which had one in a group. The dispatcher's own."""

    def __init__(self) -> None:
        self._contentions: defaultdict[str, Contention] = defaultdict(Contention)
        self._in_groups: dict[str, float] = {}

    def are_met(self, handler: Handler, *, in_groups: bool = False) -> bool:
        """Say whether a handler's jobs were in each other's way of late, or its groups were."""
        contention = self._contentions.get(handler.name)
        if contention is not None and contention.is_on:
            return True
        met_at = self._in_groups.get(handler.name) if in_groups else None
        return met_at is not None and time.monotonic() - met_at < APART_SECONDS

    def allow(self, handler: Handler, underway: Underway) -> bool:
        """Say whether another job of a handler may run beside those under way."""
        contention = self._contentions.get(handler.name)
        return contention is None or contention.allows(underway.of(handler))

    def learn(self, job: Job, outcome: Outcome, underway: Underway) -> Outcome:
        """Take from what came of a job how many of its handler may run side by side.

        Returns the outcome, which says of a conflict how long its work has to wait.
        """
        name = job.handler.name
        match outcome:
            case Applied(waited=False) if name not in self._contentions:
                return outcome  # as nearly always
            case Shared(outcomes):
                # More writes and a longer transaction: by themselves they may meet none.
                if any(isinstance(o, TryAgain) and o.kind is Kind.CONFLICT for o in outcomes):
                    self._in_groups[name] = time.monotonic()
            case TryAgain(kind=Kind.CONFLICT, counts=False):
                contention = self._contentions[name]
                sole = contention.is_sole
                running = underway.of(job.handler) + 1
                wait = contention.met(running=running, seconds=job.call.seconds)
                return replace(outcome, after_seconds=wait, sole=sole)
            case TryAgain(kind=Kind.QUEUED) | Applied(waited=True):
                running = underway.of(job.handler) + 1
                self._contentions[name].waited(running=running, seconds=job.call.seconds)
            case Applied():
                self._contentions[name].met_none(most=underway.most, seconds=job.call.seconds)
        return outcome
