"""Experience: what a relay has learnt of its topics, kept from term to term."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom import errors
    from postroom.topics import Topic

__all__ = ["Experience"]

# A connection may be lost by chance just when an event is under way alone.
REFUSED_ALONE_TIMES = 3
# A policy may have been lifted since.
REMEMBERED_SECONDS = 600.0


@dataclass(slots=True)
class _Known:
    """One topic: the largest entry that it took, and the event that it refused last."""

    accepted: int = 0
    refused: str = ""
    refused_size: int = 0
    times: int = 0
    batch_limit: int | None = None
    limited_at: float = 0.0


class Experience:
    """Kept by the relay, used by its thread alone; sizes are as lanes measure entries.

    The broker refuses an entry by closing the connection, which happens for other reasons too. One
    event is held to be refused for good once that has happened several times while it was under
    way alone, if the topic took smaller ones from this relay, and never one so large. `largest` is
    what a message may take anywhere: the setting, or less where the client refused one for that.
    """

    def __init__(self, *, largest: int) -> None:
        self.largest = largest
        self._topics: dict[Topic, _Known] = {}

    def _of(self, topic: Topic) -> _Known:
        return self._topics.setdefault(topic, _Known())

    def accepted(self, topic: Topic) -> int:
        """Return the size of the largest entry that a topic took from this relay."""
        return self._of(topic).accepted

    def note_accepted(self, topic: Topic, size: int) -> None:
        """Take note of an entry that is stored."""
        known = self._of(topic)
        known.accepted = max(known.accepted, size)
        known.refused, known.times = "", 0

    def note_refused(
        self, topic: Topic, row_id: str, count: int, size: int, refused: errors.Refused
    ) -> None:
        """Take note of an entry that was not stored, of so many events from one on."""
        known = self._of(topic)
        if count > 1:
            known.batch_limit, known.limited_at = min(size - 1, known.accepted), time.monotonic()
        elif refused.too_large:
            self.largest = min(self.largest, size - 1)
        else:
            known.times = known.times + 1 if known.refused == row_id else 1
            known.refused, known.refused_size = row_id, size

    def refuses(self, topic: Topic, row_id: str) -> bool:
        """Say whether a topic refuses an event for good."""
        known = self._of(topic)
        often = known.refused == row_id and known.times >= REFUSED_ALONE_TIMES
        return often and 0 < known.accepted < known.refused_size

    def batch_limit(self, topic: Topic) -> int | None:
        """Return the size beyond which a topic refused a batch lately, None where it did not."""
        known = self._of(topic)
        if time.monotonic() - known.limited_at > REMEMBERED_SECONDS:
            known.batch_limit = None
        return known.batch_limit
