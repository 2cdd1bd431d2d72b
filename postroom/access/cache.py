"""Cache: what a service was asked is not asked again within moments."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["Cache"]

Answer = TypeVar("Answer")


class Cache(Generic[Answer]):
    """Keeps the last answer for some seconds, under what it is about. Thread-safe.

    Whoever asks while somebody else is asking waits for that one: a hundred who fail at once ask
    once.
    """

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._last: tuple[Hashable, float, Answer] | None = None

    def of(self, about: Hashable, ask: Callable[[], Answer]) -> Answer:
        """Return the last answer if it is new enough and about this, or else ask."""
        with self._lock:
            if self._last is not None:
                same, asked_at, answer = self._last
                if same == about and time.monotonic() - asked_at < self._seconds:
                    return answer
            answer = ask()
            self._last = about, time.monotonic(), answer
            return answer
