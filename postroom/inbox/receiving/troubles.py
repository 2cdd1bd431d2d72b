"""Troubles: what stands still and why, said once, and then once a minute while it lasts."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom.reminders import Reminders

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Troubles"]

logger = logging.getLogger(__name__)

# A broker that goes away takes every topic with it: a few of them are named, the rest are counted.
MOST_LINES = 5
# What troubles are about that keep a topic from being read.
OF_TOPICS = ("reading ", "looking for ")


@dataclass(slots=True)
class _Trouble:
    sentence: str
    mended: str
    was_said: bool = False


class Troubles:
    """Keeps the troubles of one subscription, by what they are about. Thread-safe.

    Whoever meets one calls begin(), as often as it likes, and end() when it is over; one thread
    calls say(), which logs and has `changed` told the sentences of those that last.
    """

    def __init__(self, subscription: str, changed: Callable[[tuple[str, ...]], None]) -> None:
        self._subscription = subscription
        self._changed = changed
        self._lock = threading.Lock()
        self._found: dict[str, _Trouble] = {}
        self._reminders = Reminders()
        self._over: list[str] = []
        self._told: tuple[str, ...] = ()

    def begin(self, about: str, sentence: str, *, mended: str) -> None:
        """Note what is wrong; `mended` is what is said when it is over."""
        with self._lock:
            found = self._found.setdefault(about, _Trouble(sentence, mended))
            found.sentence, found.mended = sentence, mended

    def end(self, about: str) -> None:
        """Note that something is not wrong, or no longer."""
        with self._lock:
            found = self._found.pop(about, None)
            if found is not None and found.was_said:
                self._over.append(found.mended)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is wrong now, the longest lasting first."""
        with self._lock:
            return tuple(trouble.sentence for trouble in self._found.values())

    @property
    def of_topics(self) -> str:
        """Why topics are not read, the longest lasting reason, or nothing."""
        with self._lock:
            found = (t.sentence for about, t in self._found.items() if about.startswith(OF_TOPICS))
            return next(found, "")

    def say(self) -> None:
        """Log what is new, what has lasted for another minute, and what is over."""
        with self._lock:
            due = [t for about, t in self._found.items() if self._reminders.is_due(about)]
            for trouble in due:
                trouble.was_said = True
            over, self._over = self._over, []
        self._log(logging.WARNING, [trouble.sentence for trouble in due])
        self._log(logging.INFO, over)
        if self._told != (sentences := self.sentences):
            self._told = sentences
            self._changed(sentences)

    def _log(self, level: int, sentences: list[str]) -> None:
        extra = {"action": "consumer_trouble", "subscription": self._subscription}
        for sentence in sentences[:MOST_LINES]:
            logger.log(level, "%s", sentence, extra=extra)
        if (more := len(sentences) - MOST_LINES) > 0:
            logger.log(level, "(And %d more of these, which the status shows)", more, extra=extra)
