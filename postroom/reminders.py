"""Reminders: what lasts is said once, and then once in a while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Announcement", "Reminders"]


class Reminders:
    """Remembers what was said, for `every_seconds`. Of one thread, or under its owner's lock.

    Where is_due() alone is called it may be from any thread: a race costs a line too many. What
    comes and goes is said no more often than what stays. Nothing is kept for longer than it counts,
    so that memory is bounded by what is said within that time.
    """

    def __init__(self, every_seconds: float = 60.0) -> None:
        self._every_seconds = every_seconds
        self._said_at: dict[Hashable, float] = {}

    def is_due(self, about: Hashable) -> bool:
        """Say whether something is to be said now; if so, it is taken as said."""
        now = time.monotonic()
        recent = {a: at for a, at in self._said_at.items() if now - at < self._every_seconds}
        due = about not in recent
        if due:
            recent[about] = now
        self._said_at = recent
        return due

    def forget(self, about: Hashable) -> None:
        """Have something said at once when it comes again."""
        self._said_at.pop(about, None)

    def clear(self) -> None:
        """Have all said at once when it comes again."""
        self._said_at.clear()


class Announcement:
    """One thing that is said at once when it changes, and else once in a while. One thread's.

    `what` is what was said last; what it is made with counts as said.
    """

    def __init__(self, what: Hashable = None, *, every_seconds: float) -> None:
        self.what = what
        self._every_seconds = every_seconds
        self._said_at = time.monotonic()

    def is_due(self, what: Hashable) -> bool:
        """Say whether this is to be said now; if so, it is taken as said."""
        now = time.monotonic()
        if what == self.what and now - self._said_at < self._every_seconds:
            return False
        self.what, self._said_at = what, now
        return True
