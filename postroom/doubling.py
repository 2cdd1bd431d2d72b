"""Doubling: a wait that grows while the same thing fails again and again."""

from __future__ import annotations

import time

__all__ = ["Doubling", "Respite"]


class Doubling:
    """Waits in seconds, each twice the one before, from `first` up to `longest`. One thread's."""

    def __init__(self, *, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def take(self) -> float:
        """Return how long to wait after the failure that has just been."""
        seconds, self._next = self._next, min(self._next * 2, self._longest)
        return seconds

    def reset(self) -> None:
        """Begin with the first one again."""
        self._next = self._first


class Respite:
    """What has failed is left alone meanwhile, each time for twice as long, up to `longest`.

    begin() and end() are one thread's at a time; `is_on` may be asked from any.
    """

    def __init__(self, *, first: float, longest: float) -> None:
        self._waits = Doubling(first=first, longest=longest)
        self._until = 0.0

    @property
    def is_on(self) -> bool:
        """Whether it is to be left alone still."""
        return time.monotonic() < self._until

    def begin(self) -> None:
        """Leave it alone from now on."""
        self._until = time.monotonic() + self._waits.take()

    def end(self) -> None:
        """Leave it alone no longer; the next time is as the first."""
        self._waits.reset()
        self._until = 0.0
