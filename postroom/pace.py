"""Pace: how many a second an act on many does at most."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pace"]

LONGEST_SLEEP_SECONDS = 0.5
MOST_AT_ONCE = 1000


class Pace:
    """Holds an act to so many a second, `per_second`; without one it never waits."""

    def __init__(self, per_second: float | None) -> None:
        self._per_second = per_second
        self._due = 0.0

    @property
    def at_once(self) -> int:
        """How many may be done in one step: what half a second allows, and a thousand at most."""
        if self._per_second is None:
            return MOST_AT_ONCE
        return int(max(1.0, min(MOST_AT_ONCE, self._per_second * LONGEST_SLEEP_SECONDS)))

    def wait(self, count: int = 1, *, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until `count` more may be done: the first ones at once, none behind the last.

        `meanwhile` is called twice a second, and ends the wait by what it raises: an act that is
        done slowly is stopped as soon as any other.
        """
        if self._per_second is None:
            return
        while (left := self._due - time.monotonic()) > 0:
            time.sleep(min(left, LONGEST_SLEEP_SECONDS))
            meanwhile()
        self._due = max(time.monotonic(), self._due) + count / self._per_second
