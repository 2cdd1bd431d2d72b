"""Patience: what has been tried for long is said, by handler and about once a minute."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from postroom.reminders import Reminders

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postroom.inbox.scheduling.held import Failures
    from postroom.inbox.scheduling.work import Work

__all__ = ["Patience"]

logger = logging.getLogger(__name__)

LONG = timedelta(seconds=60)
LOOK_SECONDS = 5.0


class Patience:
    """Warns of handlers whose events have failed for a minute and are still tried.

    An outage burns no attempts, so that nothing else would tell. The dispatcher's own.
    """

    def __init__(self, subscription: str) -> None:
        self._subscription = subscription
        self._look_at = 0.0
        self._reminders = Reminders()

    def look(self, works: Iterable[Work]) -> None:
        """Look through what waits and what is at work, every few seconds."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        for handler, failures in _by_handler(works).items():
            if self._reminders.is_due(handler):
                self._say(handler, failures)

    def _say(self, handler: str, failures: list[Failures]) -> None:
        oldest = min(failures, key=_first)
        since = _first(oldest)
        logger.warning(
            "The handler %s has failed with %d events of %r for a while, with the first of them "
            "for %.0f s, since %s: %s; they are tried again",
            handler,
            len(failures),
            self._subscription,
            (datetime.now(UTC) - since).total_seconds(),
            since.isoformat(timespec="seconds"),
            oldest.reason,
            extra={"action": "handler_waits", "handler": handler},
        )


def _by_handler(works: Iterable[Work]) -> dict[str, list[Failures]]:
    long_ago = datetime.now(UTC) - LONG
    found: dict[str, list[Failures]] = {}
    for work in works:
        for held in work.deliveries:
            failures = held.failures.get(work.handler.name)
            if failures is not None and failures.first is not None and failures.first < long_ago:
                found.setdefault(work.handler.name, []).append(failures)
    return found


def _first(failures: Failures) -> datetime:
    return failures.first or datetime.now(UTC)
