"""Parking: events on their way to the dead letters."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from postroom import errors
from postroom.inbox.scheduling.mailbox import LetterDone

if TYPE_CHECKING:
    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.parking.dead_letters import DeadLetters
    from postroom.inbox.scheduling.held import Held
    from postroom.inbox.scheduling.mailbox import Mailbox

__all__ = ["Parking"]

logger = logging.getLogger(__name__)

REPORT_SECONDS = 1.0


class Parking:
    """Sends what was given up to the dead letters, and says so: the first of a second, and a count.

    The dispatcher's own; what the broker answers comes through the mailbox.
    """

    def __init__(self, dead_letters: DeadLetters, mailbox: Mailbox) -> None:
        self._dead_letters = dead_letters
        self._mailbox = mailbox
        self._in_flight = 0
        self._since_report = 0
        self._report_at = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether the broker has yet to say what became of a dead letter."""
        return self._in_flight > 0

    def park(self, held: Held, handler: Handler | None, reason: str) -> None:
        """Send a delivery to the dead letters of a handler, or of the subscription."""
        self._in_flight += 1
        self._say(held, handler, reason)

        def stored(ok: bool) -> None:  # noqa: FBT001 - the letterbox's callback
            self._mailbox.post(LetterDone(held, handler, ok))

        self._dead_letters.park(
            held.delivery,
            reason=reason,
            handler=handler,
            failures=held.failures[handler.name if handler else ""],
            stored=stored,
        )

    def settled(self, item: LetterDone) -> None:
        """Note the broker's answer.

        Raises:
            ServiceUnavailable: it has not stored the dead letter; what is held comes again.

        """
        self._in_flight -= 1
        if not item.stored:
            raise errors.ServiceUnavailable(
                "Pulsar did not store a dead letter; the consumer connects anew and what it held "
                "is delivered again"
            )

    def gave_up(self) -> None:
        """Note that a dead letter was not stored; its message comes again."""
        self._in_flight -= 1

    def report(self) -> None:
        """Say how many followed the one that was said, once its second is over."""
        if not self._since_report or time.monotonic() < self._report_at:
            return
        if self._since_report > 1:
            logger.warning("%d more events became dead letters", self._since_report - 1)
        self._since_report = 0

    def _say(self, held: Held, handler: Handler | None, reason: str) -> None:
        if self._since_report == 0:
            logger.warning(
                "An event on %s became a dead letter%s: %s",
                held.delivery.place[0],
                f" of {handler.name}" if handler else "",
                reason,
                extra={"action": "dead_letter", "event_id": held.delivery.event_id},
            )
            self._report_at = time.monotonic() + REPORT_SECONDS
        self._since_report += 1
