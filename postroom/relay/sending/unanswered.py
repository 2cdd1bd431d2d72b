"""Unanswered: rows for which a user's function fails by what should pass, and for how long now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from postroom import errors

__all__ = ["Unanswered"]

# As long as most outages; who waits for longer is told to look.
LONGEST_SECONDS = 600.0
# A relay asks again within some seconds; a row that comes after longer has come anew.
FORGOTTEN_SECONDS = 120.0
MOST_ROWS = 1000


@dataclass(slots=True)
class _Asked:
    since: float
    last: float


class Unanswered:
    """Kept by the relay from term to term, used by its thread alone.

    What a function fails by may pass, or be this one row's fault for ever: nobody can tell. So a
    row is waited for, in its place, and given up once it took longer than `longest_seconds`.
    """

    def __init__(self, *, longest_seconds: float = LONGEST_SECONDS) -> None:
        self._longest_seconds = longest_seconds
        self._rows: dict[str, _Asked] = {}

    def judged(self, row_id: Any, failed: errors.RoutingFailed) -> errors.Poison:
        """Return why a row is given up.

        Raises:
            RoutingFailed: it is not yet; it says which row is waited for, and since when.

        """
        now, known = time.monotonic(), str(row_id)
        asked = self._rows.pop(known, None)
        if asked is None or now - asked.last > FORGOTTEN_SECONDS:
            asked = _Asked(since=now, last=now)
        waited = now - asked.since
        if waited > self._longest_seconds:
            return errors.Poison(f"{failed}; that was tried for {waited:.0f} s")
        asked.last = now
        while len(self._rows) >= MOST_ROWS:
            del self._rows[next(iter(self._rows))]
        self._rows[known] = asked
        raise errors.RoutingFailed(
            f"{failed}. Row {row_id} and all behind it wait, for {waited:.0f} s now; after "
            f"{self._longest_seconds:.0f} s it is taken for one that can never be sent"
        ) from failed
