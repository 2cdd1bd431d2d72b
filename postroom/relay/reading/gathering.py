"""Gathering: for how long few rows let the next ones come, which then are read together."""

from __future__ import annotations

import threading
import time

__all__ = ["GATHERING", "Gathering"]

# What a reply of one row takes of the relay, from the question to the broker's answer, is 0.8 ms of
# processor time, and as much as one of twenty. So at a thousand events a second this is a third
# less work for a relay of one outbox partition, and a fifth less for server and broker.
PACE_SECONDS = 0.002
# Of four outbox partitions each gathers for 8 ms: half of the events waited for 9 ms instead of 17,
# 99 of 100 for 35 instead of 88, since all of a process's threads wait for one interpreter's lock.
# On a quiet machine that is more than need be (docs/scaling.md), on a busy one not: at a load of 11
# on two processors 99 of 100 took 76 ms, and 90 with turns of 1 ms.
LONGEST_SECONDS = 0.02


class Gathering:
    """Gives out turns, one each `pace_seconds`, to whoever has just read few rows; thread-safe.

    So a process with many streams reads as often as one with a single stream, which waits for the
    pace; nobody waits for longer than `longest_seconds`.
    """

    def __init__(
        self, *, pace_seconds: float = PACE_SECONDS, longest_seconds: float = LONGEST_SECONDS
    ) -> None:
        self._pace = pace_seconds
        self._longest = longest_seconds
        self._lock = threading.Lock()
        self._last = 0.0

    def turn(self, now: float) -> float:
        """Return for how many seconds from now on, by the monotonic clock, rows may gather."""
        with self._lock:
            self._last = min(max(now, self._last) + self._pace, now + self._longest)
            return self._last - now

    def wait(self) -> None:
        """Let rows gather until it is one's turn."""
        time.sleep(self.turn(time.monotonic()))


# One for the process, as its interpreter's lock is.
GATHERING = Gathering()
