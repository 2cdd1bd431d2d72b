"""Accounts: what was committed, what has arrived, and what is still under way."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Accounts", "Committed"]


@dataclass(frozen=True, slots=True)
class Committed:
    """An event as the change stream tells of it: its row's id, its name, what is to become of it.

    `fate` is `good` for what has to arrive, `poison` for what has to be set aside, and `large` or
    `delayed` for what may be either.
    """

    id: str
    name: str
    fate: str
    key: str | None = None
    partition: str = "default"


class Accounts:
    """Compares, as they come, the committed events with those that arrive; thread-safe.

    `marked` waits until everything committed so far is known here.
    """

    def __init__(self, marked: Callable[[], int]) -> None:
        self._marked = marked
        self._lock = threading.Lock()
        self._open: dict[str, tuple[int, str]] = {}
        self._early: set[str] = set()
        self._count = 0

    def committed(self, event: Committed) -> None:
        """Take an event that was committed."""
        with self._lock:
            if event.id in self._early:
                self._early.discard(event.id)
            else:
                self._open[event.id] = (self._count, f"{event.fate} {event.name}")
            self._count += 1

    def arrived(self, ids: Iterable[str]) -> None:
        """Take events that are on a topic, or were set aside."""
        with self._lock:
            for event_id in ids:
                # What was sent twice stays in here, which the judge counts.
                if self._open.pop(event_id, None) is None:
                    self._early.add(event_id)

    @property
    def count(self) -> int:
        """How many events were committed, as far as is known here."""
        return self._count

    @property
    def under_way(self) -> int:
        """How many events are under way, whenever they were committed."""
        return len(self._open)

    def mark(self) -> int:
        """Return a mark behind everything that has been committed so far."""
        return self._marked()

    def missing(self, mark: int) -> Mapping[str, int]:
        """Return how many of the events before the mark are under way, by their names."""
        with self._lock:
            return Counter(name for number, name in self._open.values() if number < mark)
