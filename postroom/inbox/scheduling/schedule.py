"""Schedule: what a handler is called with next, and when."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import defaultdict, deque
from dataclasses import replace
from typing import TYPE_CHECKING

from postroom.failures import Kind
from postroom.inbox.handling.outcome import Applied, TryAgain
from postroom.inbox.scheduling.backlog import Backlog
from postroom.inbox.scheduling.contention import Contention
from postroom.inbox.scheduling.work import Work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.inbox.handling.job import Job
    from postroom.inbox.handling.outcome import Outcome
    from postroom.inbox.scheduling.held import Held
    from postroom.inbox.scheduling.underway import Underway

__all__ = ["Schedule"]


class Schedule:
    """Work in the order in which it is to be done: suspects, what is due, what is new.

    The dispatcher's own.
    """

    def __init__(self) -> None:
        self._backlog = Backlog()
        self._alone: deque[Work] = deque()
        self._next: deque[Work] = deque()
        self._later: list[tuple[float, int, Work]] = []
        self._count = itertools.count()
        self._contentions: defaultdict[str, Contention] = defaultdict(Contention)

    def __iter__(self) -> Iterator[Work]:
        """Walk over what waits, but for what is new."""
        yield from self._alone
        yield from self._next
        yield from (work for _, _, work in self._later)

    @property
    def later(self) -> int:
        """How much waits for a time, or for its turn."""
        return len(self._alone) + len(self._next) + len(self._later)

    def wait_seconds(self, longest: float) -> float:
        """Return how long nothing becomes due, at most `longest`."""
        if not self._later:
            return longest
        return min(longest, max(0.0, self._later[0][0] - time.monotonic()))

    def add(self, held: Held) -> None:
        """Queue a delivery, which knows its handlers, behind the others of its key."""
        self._backlog.add(held)

    def at_once(self, work: Work) -> None:
        """Do it before what is new."""
        self._next.append(work)

    def alone(self, work: Work) -> None:
        """Do it when nothing else is under way, and nothing else before it."""
        self._alone.append(work.isolated())

    def after(self, seconds: float, work: Work) -> None:
        """Do it in a while; the keys of its deliveries wait."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._count), work))

    def put_back(self, work: Work) -> None:
        """Do it first when it may be done."""
        (self._alone if work.alone else self._next).appendleft(work)

    def done(self, held: Held) -> None:
        """Note that all handlers are done with a delivery; its key's next one may follow."""
        self._backlog.done(held)

    def take(self, underway: Underway) -> Work | None:
        """Take what may be started now, beside what is under way."""
        if self._alone:
            return self._alone.popleft()
        if not underway.has_room:
            return None
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._next.append(heapq.heappop(self._later)[2])
        while (found := self._allowed(underway)) is None:
            if not self._backlog:
                return None
            self._next.extend(
                Work(handler=handler, deliveries=tuple(deliveries))
                for handler, deliveries in self._backlog.take()
            )
        return found

    def go_on(self, work: Work) -> None:
        """Do at once what is to be done after work that is over."""
        following = work.following()
        if following is not None:
            self.at_once(following)

    def contends(self, work: Work) -> bool:
        """Say whether its handler's jobs were in each other's way of late."""
        contention = self._contentions.get(work.handler.name)
        return contention is not None and contention.is_on

    def learn(self, job: Job, outcome: Outcome, underway: Underway) -> Outcome:
        """Take from what came of a job how many of its handler may run side by side.

        Returns the outcome, which says of a conflict how long its work has to wait.
        """
        name, seconds, running = job.handler.name, job.call.seconds, underway.of(job.handler) + 1
        match outcome:
            case TryAgain(kind=Kind.CONFLICT, counts=False):
                contention = self._contentions[name]
                sole = contention.is_sole
                wait = contention.met(running=running, seconds=seconds)
                return replace(outcome, after_seconds=wait, sole=sole)
            case TryAgain(kind=Kind.QUEUED) | Applied(waited=True):
                self._contentions[name].waited(running=running, seconds=seconds)
            case Applied() if name in self._contentions:
                self._contentions[name].met_none(most=underway.most, seconds=seconds)
        return outcome

    def _allowed(self, underway: Underway) -> Work | None:
        for index, work in enumerate(self._next):
            contention = self._contentions.get(work.handler.name)
            if contention is None or contention.allows(underway.of(work.handler)):
                del self._next[index]
                return work
        return None
