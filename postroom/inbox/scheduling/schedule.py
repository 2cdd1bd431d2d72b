"""Schedule: what a handler is called with next, and when."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from typing import TYPE_CHECKING

from postroom.inbox.scheduling.conflicts import Conflicts
from postroom.inbox.scheduling.key_queues import KeyQueues, Threads
from postroom.inbox.scheduling.work import Work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.inbox.scheduling.held import Held
    from postroom.inbox.scheduling.underway import Underway

__all__ = ["Schedule"]


class Schedule:
    """Work in the order in which it is to be done: suspects, what is due, what is new.

    The dispatcher's own.
    """

    def __init__(self) -> None:
        self._queues = KeyQueues()
        self._alone: deque[Work] = deque()
        self._next: deque[Work] = deque()
        self._later: list[tuple[float, int, Work]] = []
        self._count = itertools.count()
        self.conflicts = Conflicts()

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
        self._queues.add(held)

    def at_once(self, work: Work) -> None:
        """Do it before what is new."""
        self._next.append(work)

    def split(self, work: Work) -> None:
        """Do it at once in parts, one of which has failed with it."""
        self._next.extend(work.apart() if work.is_group else [work.halved()])

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
        self._queues.done(held)

    def take(self, underway: Underway) -> Work | None:
        """Take what may be started now, beside what is under way."""
        if self._alone:
            return self._alone.popleft()
        if not underway.free:
            return None
        while self._later and self._later[0][0] <= time.monotonic():
            self._next.append(heapq.heappop(self._later)[2])
        while (found := self._allowed(underway)) is None:
            if not self._queues:
                return None
            threads = Threads(
                underway.threads, underway.threads - len(underway), underway.in_groups
            )
            for handler, deliveries in self._queues.take(threads):
                self._next.append(Work(handler=handler, deliveries=tuple(deliveries)))
        if found.is_group and self.conflicts.are_met(found.handler, in_groups=True):
            found, *others = found.apart()
            self._next.extendleft(reversed(others))
        return found

    def go_on(self, work: Work) -> None:
        """Do at once what is to be done after work that is over."""
        following = work.following()
        if following is not None and following.wait_seconds > 0:
            self.after(following.wait_seconds, following)
        elif following is not None:
            self.at_once(following)

    def _allowed(self, underway: Underway) -> Work | None:
        for index, work in enumerate(self._next):
            if self.conflicts.allow(work.handler, underway):
                del self._next[index]
                return work
        return None
