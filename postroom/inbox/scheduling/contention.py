"""Contention: jobs of a handler that stand in each other's way are run fewer at a time."""

from __future__ import annotations

import time

from postroom import jitter

__all__ = ["Contention"]

# A conflict that a job meets while no other of its handler runs here comes from elsewhere.
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
JITTER = 0.5
# How much a job's time weighs against those before it.
WEIGHT = 0.2
# So many in a row go well before one more is let in: a hot document costs one run in seven.
PATIENCE = 6
# Jobs that take turns wait for each other, whether or not they write the same: so waiting proves
# nothing, and a limit lapses that no conflict has renewed. Where they do, it soon lasts longer.
FIRST_MEMORY_SECONDS = 30.0
LONGEST_MEMORY_SECONDS = 480.0


class Contention:
    """How many jobs of one handler may run side by side in this worker. The dispatcher's own.

    Halved by a conflict, one more after some jobs in a row that met none: as TCP finds out how
    much a line takes. Handlers that write one hot document end up one after another, those that
    seldom meet are not held up.
    """

    def __init__(self) -> None:
        self._limit: int | None = None
        self._halved_at = 0.0
        self._in_a_row = 0
        self._seconds = FIRST_WAIT_SECONDS
        self._from_elsewhere = 0
        self._memory = FIRST_MEMORY_SECONDS
        self._until = float("-inf")
        self._first_at = float("-inf")

    @property
    def is_on(self) -> bool:
        """Whether jobs have to take turns."""
        if self._limit is not None and time.monotonic() > self._until:
            self._limit = None
        return self._limit is not None

    @property
    def is_sole(self) -> bool:
        """Whether one job may run at a time."""
        return self._limit == 1

    @property
    def is_over(self) -> bool:
        """Whether there is no limit."""
        return self._limit is None

    def allows(self, running: int) -> bool:
        """Say whether another job may run beside so many."""
        return not self.is_on or running < (self._limit or 1)

    def met(self, *, running: int, seconds: float) -> float:
        """Note a conflict of a job that ran so long, one of so many; return how long it waits.

        It waits for its turn only, unless it ran alone here. The first conflict, and those of jobs
        that ran beside it, are no reason to take turns: while a collection is being made, for
        instance, all that write there conflict once. Who meets another one a moment later is.
        """
        if not self.is_on and self._is_first(seconds):
            return jitter.around(max(self._seconds, min(seconds, LONGEST_WAIT_SECONDS)), by=JITTER)
        self._renew()
        if self._limit != 1:
            self._halve(running=running, seconds=seconds)
            return 0.0
        self._in_a_row = 0
        self._from_elsewhere += 1
        wait = self._seconds * 2.0 ** min(self._from_elsewhere - 1, 10)
        return jitter.around(min(wait, LONGEST_WAIT_SECONDS), by=JITTER)

    def waited(self, *, running: int, seconds: float) -> None:
        """Note a job that had to wait for its turn, one of so many."""
        self._in_a_row = 0
        now = time.monotonic()
        if not self.is_on:
            if now - seconds <= self._until:
                return  # it began when turns were taken, and that is over
            self._until = now + FIRST_MEMORY_SECONDS  # other workers take turns
        self._halve(running=running, seconds=seconds)

    def _is_first(self, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._first_at > FIRST_MEMORY_SECONDS:
            self._first_at = now
        return now - seconds <= self._first_at

    def _renew(self) -> None:
        now = time.monotonic()
        if not self.is_on:
            quickly = now - self._until < self._memory
            doubled = min(self._memory * 2, LONGEST_MEMORY_SECONDS)
            self._memory = doubled if quickly else FIRST_MEMORY_SECONDS
        self._until = now + self._memory

    def _halve(self, *, running: int, seconds: float) -> None:
        self._in_a_row = 0
        if time.monotonic() - seconds >= self._halved_at:
            # Those that began before know nothing of the last halving.
            self._limit = max(1, (self._limit or running) // 2)
            self._halved_at = time.monotonic()

    def met_none(self, *, most: int, seconds: float) -> None:
        """Note a job that went well; with `most` side by side there is no limit any more."""
        self._seconds += WEIGHT * (seconds - self._seconds)
        self._from_elsewhere = 0
        if self._limit is None:
            return
        self._in_a_row += 1
        if self._in_a_row > PATIENCE:
            self._in_a_row = 0
            self._limit += 1
        if self._limit >= most:
            self._limit = None
