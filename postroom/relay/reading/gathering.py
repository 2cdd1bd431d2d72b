"""Gathering: for how long few rows let the next ones come, which then are read together."""

from __future__ import annotations

import threading
import time

__all__ = ["GATHERING", "Gathering"]

# What a reply of one row takes of the relay, from the question to the broker's answer, is 0.8 ms of
# processor time, and as much as one of twenty. So at a thousand events a second this is a third
# less work for a relay of one outbox partition, and a fifth less for server and broker.
PACE_SECONDS = 0.002
LONGEST_SECONDS = 0.02
# Who has not gathered for so long is idle, or has a backlog, and then nothing is to be gained here.
RECENT_SECONDS = 0.1


class Gathering:
    """Lets rows gather for whoever has just read few of them; thread-safe.

    Who is alone waits for `pace_seconds`, reads on, and has the next rows ready once those before
    them are stored. Several streams of a process share one interpreter, of which such reading ahead
    takes what the sending needs: where others have gathered lately, too, one waits until what it
    has read is stored. So each has one batch under way, which grows as the machine gets slower.
    Nobody waits for longer than `longest_seconds`.
    """

    def __init__(
        self,
        *,
        pace_seconds: float = PACE_SECONDS,
        longest_seconds: float = LONGEST_SECONDS,
        recent_seconds: float = RECENT_SECONDS,
    ) -> None:
        self._pace = pace_seconds
        self._longest = longest_seconds
        self._recent = recent_seconds
        self._lock = threading.Lock()
        # When whoever gathered lately last did so.
        self._lately: dict[threading.Event, float] = {}

    def wait(self, stored: threading.Event | None = None) -> None:
        """Let rows gather; `stored` is set once those that one has read are.

        Without it, as beside a scan, one waits for the pace and is nobody's other.
        """
        time.sleep(self._pace)
        if stored is not None and self.has_others(stored, time.monotonic()):
            stored.wait(self._longest - self._pace)

    def has_others(self, one: threading.Event, now: float) -> bool:
        """Note that one gathers, and say whether others have lately; `now` is monotonic."""
        with self._lock:
            self._lately[one] = now
            if len(self._lately) > 1:
                since = now - self._recent
                self._lately = {each: at for each, at in self._lately.items() if at >= since}
            return len(self._lately) > 1


# One for the process, as its interpreter's lock is.
GATHERING = Gathering()
