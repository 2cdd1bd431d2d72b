"""Pollers: what is looked at again and again while somebody watches, in a thread of its own."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Poller", "Seen"]

T = TypeVar("T")

PATIENCE_SECONDS = 3.0
# A browser that asks every few seconds has gone when it has not asked for so long.
WATCHED_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen(Generic[T]):
    """What was seen last, and when; `trouble` is a sentence where the last look did not succeed."""

    value: T | None = None
    at: datetime | None = None
    trouble: str = ""


class Poller(Generic[T]):
    """Looks every `every` seconds while it is asked, else every `idle` seconds, or not at all.

    `look` may block for as long as its service does: it has one thread, and seen() returns at once,
    with what was seen before and the sentence that nothing was since. `why` makes that sentence of
    what `look` raised; a look that takes longer than `patience` is told. Thread-safe.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], T],
        *,
        why: Callable[[Exception], str],
        every: float,
        idle: float | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._name = name
        self._look = look
        self._why = why
        self._seconds = every, idle, patience
        self._changed = threading.Condition()
        self._asked_at = 0.0
        self._hurried = False
        self._begun_at: float | None = None
        self._seen: Seen[T] = Seen()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look, if it has not yet."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def seen(self) -> Seen[T]:
        """Return what was seen last; returns at once."""
        self.start()
        with self._changed:
            self._asked_at = time.monotonic()
            self._changed.notify_all()
            seen, begun = self._seen, self._begun_at
        waited = 0.0 if begun is None else time.monotonic() - begun
        if waited < self._seconds[-1] or seen.trouble:
            return seen
        trouble = f"{self._name} has not answered for {waited:.0f} seconds; it is still waited for."
        return Seen(value=seen.value, at=seen.at, trouble=trouble)

    def look_again(self) -> None:
        """Have it look at once, as after a change."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._begun_at = time.monotonic()
            seen = self._once()
            with self._changed:
                self._seen, self._begun_at = seen, None
                self._pause()

    def _once(self) -> Seen[T]:
        try:
            return Seen(value=self._look(), at=datetime.now(UTC))
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest of the page lives
            return Seen(value=self._seen.value, at=self._seen.at, trouble=self._why(error))

    def _pause(self) -> None:
        every, idle, _ = self._seconds
        self._changed.wait_for(lambda: self._hurried, timeout=every)
        self._changed.wait_for(lambda: self._hurried or self._is_watched(), timeout=idle)
        self._hurried = False

    def _is_watched(self) -> bool:
        return time.monotonic() - self._asked_at < WATCHED_SECONDS
