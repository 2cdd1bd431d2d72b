"""Admittance: whether the services let the relays of one worker in."""

from __future__ import annotations

__all__ = ["Admittance"]


class Admittance:
    """What a worker that shares was told last: its pool when it looked, its seats when they asked.

    Nobody is let in before both were answered. Thread-safe: each is one text, replaced as a whole.
    """

    def __init__(self) -> None:
        self._at_rows: str | None = ""
        self._at_locks: str | None = ""

    def seen(self) -> None:
        """Note that who serves what was looked at."""
        self._at_rows = None

    def unseen(self, sentence: str) -> None:
        """Note why it could not be looked at."""
        self._at_rows = sentence

    def answered(self) -> None:
        """Note that a lock that was asked for was given, or another one has it."""
        self._at_locks = None

    def unanswered(self, sentence: str) -> None:
        """Note why a lock could not be asked for."""
        self._at_locks = sentence

    def trouble(self, *, asks: bool) -> str | None:
        """Return what keeps the relays out, which may be nothing that can be said; None if nothing.

        Who `asks` for no lock needs no answer to that.
        """
        return self._at_locks if asks and self._at_rows is None else self._at_rows
