"""Elsewhere: events that no handler here wants, and one of another worker does."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from postroom.inbox.handling.handlers import Handler
from postroom.inbox.handling.outcome import Applied, GiveUp, TryAgain
from postroom.reminders import Reminders

if TYPE_CHECKING:
    from postroom.inbox.handling.repertoire import Repertoire
    from postroom.inbox.scheduling.delivery import Place
    from postroom.inbox.scheduling.held import Held

__all__ = ["ELSEWHERE", "Elsewhere"]

logger = logging.getLogger(__name__)

# As long as a worker may take to be replaced by one that has the handler.
LONGEST_SECONDS = 600.0
LOOK_SECONDS = 1.0

# Stands for the handler in a delivery's place among the others of its key; never called.
ELSEWHERE = Handler(
    name="", function=lambda *_: None, matches=(), wants_session=False, max_attempts=1
)


class Elsewhere:
    """Has such events wait, unacknowledged and before the later ones of their keys.

    When this worker ends they go to another one, in order. After ten minutes, and where more than
    `most` wait, they are given up, so that a deploy that stands still holds nothing up for ever.
    What nobody wants, or not any more, is acknowledged. The dispatcher's own.
    """

    def __init__(self, repertoire: Repertoire, *, subscription: str, most: int) -> None:
        self._repertoire = repertoire
        self._subscription = subscription
        self._most = most
        self._since: dict[Place, float] = {}
        self._reminders = Reminders()

    def may_want(self, name: str) -> bool:
        """Say whether another worker wants events of a name, or may as far as can be told now."""
        return self._repertoire.is_wanted_elsewhere(name) is not False

    def judged(self, held: Held, name: str) -> Applied | TryAgain | GiveUp:
        """Return what becomes of one whose turn has come: applied is what nobody wants."""
        place, now = held.delivery.place, time.monotonic()
        is_wanted = self._repertoire.is_wanted_elsewhere(name)
        if is_wanted is None:
            return TryAgain(after_seconds=LOOK_SECONDS, counts=False)
        if not is_wanted:
            self._since.pop(place, None)
            return Applied(handled=0, repeated=0)
        since = self._since.setdefault(place, now)
        full = len(self._since) > self._most
        if full or now - since > LONGEST_SECONDS:
            del self._since[place]
            why = (
                f"more than {self._most} such events wait here"
                if full
                else f"it has waited for {LONGEST_SECONDS / 60:.0f} minutes"
            )
            return GiveUp(
                f"No handler of this worker wants events called {name[:100]!r}, another worker's "
                f"does, and {why}: redrive it once all workers of the subscription have the handler"
            )
        self._say(name)
        return TryAgain(after_seconds=LOOK_SECONDS, counts=False)

    def keep(self) -> None:
        """Tell the others, once in a while, what is handled here."""
        self._repertoire.keep()

    def _say(self, name: str) -> None:
        if self._reminders.is_due("waits"):
            logger.warning(
                "%d events of %r wait here unacknowledged, the last one called %r: another worker "
                "handles them, and this one has no handler for them. They go to it when this one "
                "is replaced, and to the dead letters after %.0f minutes",
                len(self._since),
                self._subscription,
                name[:100],
                LONGEST_SECONDS / 60,
                extra={"action": "handled_elsewhere"},
            )
