"""Keeper: keeps one source open."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from postroom import refusals, wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.access.pulsar import Access
    from postroom.inbox.source import Source
    from postroom.inbox.troubles import Troubles

__all__ = ["Keeper"]

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10.0
# A topic that moves to another broker is back sooner.
WORTH_SAYING_SECONDS = 1.0
# Calls on the client that block, of all sources together.
AT_ONCE = threading.BoundedSemaphore(8)


class Keeper:
    """Opens a source, and again whenever it is broken, each time in a thread of its own.

    tend() and what it reads belong to the thread of Sources; a failure is a trouble of this topic
    and of no other.
    """

    def __init__(
        self,
        source: Source,
        *,
        subscription: str,
        access: Access,
        open_: Callable[[Source], None],
        troubles: Troubles,
    ) -> None:
        self.source = source
        self._subscription = subscription
        self._access = access
        self._open = open_
        self._troubles = troubles
        self._attempt: threading.Thread | None = None
        self._failures = 0
        self._due = 0.0
        self._broken_since: float | None = None
        self.was_tried = False

    def tend(self) -> None:
        """Do what is due; returns at once."""
        now = time.monotonic()
        if self.source.is_open and not self.source.is_broken:
            self._broken_since = None
            return
        self._broken_since = self._broken_since or now
        if (
            self.was_tried
            and now - self._broken_since > WORTH_SAYING_SECONDS
            and not self._failures
        ):
            self._say("the connection was lost")
        if self._attempt is None and now >= self._due and AT_ONCE.acquire(blocking=False):
            self._attempt = threading.Thread(target=self._try, daemon=True)
            self._attempt.start()

    def give_up(self) -> bool:
        """Leave a topic that is not wanted, if it is not read; say whether it was left."""
        if self._attempt is not None or (self.source.is_open and not self.source.is_broken):
            return False
        self._troubles.end(self._about)
        self.source.close()
        return True

    def _try(self) -> None:
        try:
            self._open(self.source)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said and tried again
            wait = min(FIRST_WAIT_SECONDS * 2**self._failures, LONGEST_WAIT_SECONDS)
            self._due, self._failures = time.monotonic() + wait, self._failures + 1
            self._refused(error)
        else:
            self._failures = 0
            self._troubles.end(self._about)
        finally:
            self.was_tried = True
            self._attempt = None
            AT_ONCE.release()

    def _refused(self, error: Exception) -> None:
        absent = type(error).__name__ == "TopicNotFound"
        if absent and self.source.topic.endswith(wire.REDRIVE):
            return  # nothing was ever put back
        self._say(refusals.why(error, self._access))

    def _say(self, why: str) -> None:
        topic = self.source.topic
        self._troubles.begin(
            self._about,
            f"The topic {topic} is not read for the subscription {self._subscription!r} ({why}); "
            "other topics are, and it is tried again",
            mended=f"The topic {topic} is read for the subscription {self._subscription!r}",
        )

    @property
    def _about(self) -> str:
        return f"reading {self.source.topic}"
