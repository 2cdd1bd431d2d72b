"""Isolation: a suspect runs alone in its worker."""

from __future__ import annotations

import threading

__all__ = ["Isolation"]


class Isolation:
    """Who may run now: many together, or one alone. One for a worker, whatever it consumes.

    Thread-safe; nobody waits in it. Whoever is refused asks again; while someone wants to be
    alone, nobody else gets in, and those who want it take turns.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._together = 0
        self._alone = False
        self._wanted_by: list[object] = []

    def enter(self) -> bool:
        """Ask to run together with others."""
        with self._lock:
            if self._alone or self._wanted_by:
                return False
            self._together += 1
            return True

    def leave(self) -> None:
        """Say that one of those who run together is done."""
        with self._lock:
            self._together -= 1

    def enter_alone(self, who: object) -> bool:
        """Ask to run alone; `who` is refused until nobody else runs or has asked before."""
        with self._lock:
            if who not in self._wanted_by:
                self._wanted_by.append(who)
            if self._alone or self._together or self._wanted_by[0] is not who:
                return False
            self._wanted_by.remove(who)
            self._alone = True
            return True

    def leave_alone(self) -> None:
        """Say that the one who ran alone is done."""
        with self._lock:
            self._alone = False

    def forget(self, who: object) -> None:
        """Take back a wish to be alone."""
        with self._lock:
            if who in self._wanted_by:
                self._wanted_by.remove(who)
