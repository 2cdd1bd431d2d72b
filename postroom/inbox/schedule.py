"""Schedule: what a handler is called with next, and when."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from typing import TYPE_CHECKING

from postroom.inbox.backlog import Backlog
from postroom.inbox.work import Work

if TYPE_CHECKING:
    from postroom.inbox.held import Held

__all__ = ["Schedule"]


class Schedule:
    """Work in the order in which it is to be done: what is due before what is new.

    The dispatcher's own.
    """

    def __init__(self) -> None:
        self._backlog = Backlog()
        self._next: deque[Work] = deque()
        self._later: list[tuple[float, int, Work]] = []
        self._count = itertools.count()

    @property
    def later(self) -> int:
        """How much waits for a time."""
        return len(self._later)

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

    def after(self, seconds: float, work: Work) -> None:
        """Do it in a while; the keys of its deliveries wait."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._count), work))

    def done(self, held: Held) -> None:
        """Note that all handlers are done with a delivery; its key's next one may follow."""
        self._backlog.done(held)

    def due(self) -> list[Work]:
        """Take what waited for a time that has come, and what is to be done at once."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._next.append(heapq.heappop(self._later)[2])
        found = list(self._next)
        self._next.clear()
        return found

    def new(self) -> list[Work]:
        """Take the delivery whose turn it is, for each of its handlers; nothing if none has."""
        if not self._backlog:
            return []
        return [Work(handler=h, deliveries=tuple(d)) for h, d in self._backlog.take()]
