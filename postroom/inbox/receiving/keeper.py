"""Keeper: keeps one source open."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom import refusals, tracing, wire
from postroom.doubling import Respite
from postroom.inbox.receiving.source import Condition

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.access.pulsar import Access
    from postroom.inbox.receiving.source import Source
    from postroom.inbox.receiving.troubles import Troubles

__all__ = ["Keeper"]

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10.0
# A broker that is asked while it closes a topic may never answer. So the client, which waits a
# little longer each time, may try first; it would do so for ever, and never say why in vain.
CLIENTS_TURN_SECONDS = 3.0
SETTLE_SECONDS = 0.2
MOMENT_SECONDS = 1.0
# Calls on the client that block, of all sources together.
AT_ONCE = threading.BoundedSemaphore(8)


@dataclass(frozen=True, slots=True)
class _Seen:
    """How the source was when it was looked at, and since when it has been so."""

    condition: Condition
    since: float


class Keeper:
    """Opens a source, and again whenever it is broken, each time in a thread of its own.

    tend() and give_up() belong to the thread of Sources. The attempt's thread, of which there is
    one at most, writes `was_tried` and the respite, and ends by letting go of `_attempt`. A failure
    is a trouble of this topic and of no other.
    """

    def __init__(
        self,
        source: Source,
        *,
        access: Access,
        open_: Callable[[Source], None],
        troubles: Troubles,
    ) -> None:
        self.source = source
        self._access = access
        self._open = open_
        self._troubles = troubles
        self._attempt: threading.Thread | None = None
        # Whether an attempt to open it has come to an end, well or not.
        self.was_tried = False
        self._respite = Respite(first=FIRST_WAIT_SECONDS, longest=LONGEST_WAIT_SECONDS)
        self._read_at = -MOMENT_SECONDS
        self._seen = _Seen(Condition.CLOSED, time.monotonic())

    @property
    def is_reading(self) -> bool:
        """Whether the topic is read, but for the moment in which it is opened again."""
        return time.monotonic() - self._read_at < MOMENT_SECONDS

    def tend(self) -> None:
        """Look at the source and do what is due; returns at once."""
        now, condition = time.monotonic(), self.source.look()
        if condition is not self._seen.condition:
            self._seen = _Seen(condition, now)
        if condition in (Condition.GOOD, Condition.STALE):
            self._read_at = now
        lasts = now - self._seen.since
        match condition:
            case Condition.AWAY if lasts > CLIENTS_TURN_SECONDS:
                self._say("the connection was lost")
                self._begin(self.source.close)
            case Condition.HANGS if lasts > CLIENTS_TURN_SECONDS:
                self._say("a receive does not come back from Pulsar's client")
                self._begin(self.source.close)
            case Condition.STALE if lasts > SETTLE_SECONDS:
                self._begin(self._try)
            case Condition.GOOD:
                self.source.tend()
            case Condition.CLOSED if not self._respite.is_on:
                self._begin(self._try)

    def give_up(self) -> bool:
        """Leave a topic that is not wanted, if it is not read; say whether it was left."""
        if self._attempt is not None or self.is_reading:
            return False
        self._troubles.end(self._about)
        self.source.close()
        return True

    def _begin(self, step: Callable[[], None]) -> None:
        if self._attempt is None and AT_ONCE.acquire(blocking=False):
            self._attempt = threading.Thread(
                target=tracing.silently(self._run), args=(step,), daemon=True
            )
            self._attempt.start()

    def _run(self, step: Callable[[], None]) -> None:
        try:
            step()
        finally:
            self._attempt = None
            AT_ONCE.release()

    def _try(self) -> None:
        try:
            self._open(self.source)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said and tried again
            self._respite.begin()
            self._refused(error)
        else:
            self._respite.end()
            self._troubles.end(self._about)
        self.was_tried = True

    def _refused(self, error: Exception) -> None:
        absent = type(error).__name__ == "TopicNotFound"
        if absent and self.source.topic.endswith(wire.REDRIVE):
            return  # nothing was ever put back
        self._say(refusals.why(error, self._access))

    def _say(self, why: str) -> None:
        topic, subscription = self.source.topic, self.source.subscription
        self._troubles.begin(
            self._about,
            f"The topic {topic} is not read for the subscription {subscription!r} ({why}); "
            "it is tried again, and no other topic waits for it",
            mended=f"The topic {topic} is read for the subscription {subscription!r}",
        )

    @property
    def _about(self) -> str:
        return f"reading {self.source.topic}"
