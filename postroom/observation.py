"""Observation: the one seam at which relay and consumer tell what has happened.

They tell frozen facts, once for a chunk or a job and never once for a row; status, metrics and
tracing subscribe, and the hot loops know none of them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Fact", "Observer"]

logger = logging.getLogger(__name__)


class Fact:
    """Something that has happened; each is a frozen dataclass of its room's `facts` module."""

    __slots__ = ()


class Observer:
    """Passes each fact on to all subscribers, in the thread that tells it.

    Subscribe before the first fact is told; tell() is safe from any thread after that, and so a
    subscriber must be. One that raises is said once by name and hears the following facts all the
    same: watching never harms what is watched.
    """

    def __init__(self, *subscribers: Callable[[Fact], None]) -> None:
        self._subscribers = list(subscribers)
        self._failed: set[int] = set()

    def subscribe(self, subscriber: Callable[[Fact], None]) -> None:
        """Have a subscriber hear all facts from now on; it must return quickly."""
        self._subscribers.append(subscriber)

    def tell(self, fact: Fact) -> None:
        """Tell all subscribers."""
        for subscriber in self._subscribers:
            try:
                subscriber(fact)
            except Exception:
                if id(subscriber) not in self._failed:
                    self._failed.add(id(subscriber))
                    logger.exception("A subscriber failed over a %s", type(fact).__name__)
