"""Standstill: for how long the whole process stood still, which is no handler's fault."""

from __future__ import annotations

import threading
import time
from collections import deque

__all__ = ["Standstill"]

# The dispatcher beats four times a second; a busy machine makes it late.
USUAL_SECONDS = 2.0
MOST_KEPT = 100


class Standstill:
    """Tells a process that was stopped, or got no processor, from a handler that hangs.

    One thread beats, others ask; thread-safe. A frozen container or virtual machine, a debugger, a
    SIGSTOP: the clock goes on meanwhile, and each handler would have been at work for too long.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._beat_at = time.monotonic()
        self._gaps: deque[tuple[float, float]] = deque(maxlen=MOST_KEPT)

    def beat(self) -> None:
        """Say that the process runs, a few times a second."""
        now = time.monotonic()
        with self._lock:
            if now - self._beat_at > USUAL_SECONDS:
                self._gaps.append((self._beat_at, now))
            self._beat_at = now

    def stood_still(self, since: float) -> float:
        """Return for how many seconds it did not run, since a monotonic time; 0 as a rule."""
        now = time.monotonic()
        with self._lock:
            last = self._gaps[-1][1] if self._gaps else 0.0
            if now - self._beat_at <= USUAL_SECONDS and last <= since:
                return 0.0  # asked some times for every event
            gaps = [*self._gaps, (self._beat_at, now)]
        lengths = (end - max(begin, since) for begin, end in gaps if end > since)
        return sum(length for length in lengths if length > USUAL_SECONDS)
