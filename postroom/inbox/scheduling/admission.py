"""Admission: how much a consumer may hold."""

from __future__ import annotations

import threading

__all__ = ["Admission"]

# Besides POSTROOM_PREFETCH: a few of the largest messages fill a gigabyte, decoded.
MOST_HELD_BYTES = 64 * 1024 * 1024


class Admission:
    """Counts messages from their receipt to their end, in number and bytes. Thread-safe.

    The threads that receive ask for room and take it; those of Sources and of letterboxes ask too,
    for what they say and do; the dispatcher gives it back, and reads what is held.
    """

    def __init__(self, most: int, *, most_bytes: int = MOST_HELD_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._held = 0
        self._bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether more may be received; the last one may be larger than what was left."""
        with self._lock:
            return self._held < self._most and self._bytes < self._most_bytes

    def take(self, size: int) -> bool:
        """Count a message in if there is room, and say whether there was."""
        with self._lock:
            if self._held >= self._most or self._bytes >= self._most_bytes:
                return False
            self._held += 1
            self._bytes += size
            return True

    def give_back(self, size: int) -> None:
        """Count a message out."""
        with self._lock:
            self._held -= 1
            self._bytes -= size

    @property
    def held(self) -> tuple[int, int]:
        """How many messages are held, and of how many bytes."""
        with self._lock:
            return self._held, self._bytes
