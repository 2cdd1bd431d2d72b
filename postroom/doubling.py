"""Doubling: a wait that grows while the same thing fails again and again."""

from __future__ import annotations

__all__ = ["Doubling"]


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
