"""Watchdog: says in the log, by name, what has stood still for longer than it may."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from postroom.reminders import Reminders

if TYPE_CHECKING:
    from postroom.telemetry.health import Health
    from postroom.telemetry.pulse import Hang

__all__ = ["Watchdog"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class Watchdog:
    """Looks once a second, in a thread of its own: what it watches may hold any other.

    Each hang is said once, then once a minute while it lasts, and its end once. Each ends by what
    bounds it: a send, a read and a checkpoint by the term, a handler and its commit by the
    handler's timeout, a thread by whoever asks /livez.
    """

    def __init__(self, health: Health) -> None:
        self._health = health
        self._reminders = Reminders()
        self._hanging: set[tuple[str, str]] = set()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="postroom-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no more; returns at once."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Say what is new, what has lasted for another minute, and what is over."""
        hangs = {(hang.who, hang.what): hang for hang in self._health.hangs()}
        for about, hang in hangs.items():
            if self._reminders.is_due(about):
                _say(hang)
        for about in self._hanging - hangs.keys():
            self._reminders.forget(about)
            logger.info("No longer: the %s of %s hung", about[1], about[0])
        self._hanging = set(hangs)


def _say(hang: Hang) -> None:
    logger.warning(
        "It hangs: %s, for %.0f s now",
        hang.sentence,
        hang.seconds,
        extra={"action": "hang", "what": hang.what, "seconds": round(hang.seconds, 1)},
    )
