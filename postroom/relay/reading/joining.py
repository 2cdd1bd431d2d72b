"""Joining: few rows that come while a batch is under way wait for it, and then leave together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from postroom.relay.reading.batch import joined

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from postroom.relay.reading.batch import Batch
    from postroom.relay.reading.lookahead import Lookahead
    from postroom.relay.reading.reader import Reader
    from postroom.relay.reading.replay import Replay

__all__ = ["Joining"]

# So much leaves at once: a batch that is worth making while another one is being stored.
FEW_BYTES = 64 << 10
# What goes to other topics does not wait for a slow one for longer.
LONGEST_SECONDS = 0.02


class Joining:
    """Hands on a reader's batches behind its Lookahead, small ones as one; the term's thread alone.

    A lane that makes batches has one under way at a time. If each reply of a row or two were a
    batch of its own, a row would wait until all the replies before it were stored one after
    another: three of them, as the reader is ahead. `is_busy` says whether a batch is under way.
    A replay, whose batches a term looks at one by one, is left as it is.
    """

    def __init__(
        self, ahead: Lookahead, reader: Reader, replay: Replay, *, is_busy: Callable[[], bool]
    ) -> None:
        self._ahead = ahead
        self._reader = reader
        self._replay = replay
        self._is_busy = is_busy
        self._until: float | None = None

    def take(self, known: Collection[str]) -> Batch | None:
        """Return the next batch that is to be sent now, if there is one."""
        if not self._replay.is_over:
            return self._ahead.take(known)
        if self._is_waiting():
            return None
        batch = self._ahead.take(known)
        if batch is None:
            return None
        parts, size = [batch], batch.size
        while not parts[-1].ends_with and size < FEW_BYTES:
            if (more := self._ahead.take(known)) is None:
                break
            parts.append(more)
            size += more.size
        return joined(parts)

    def wait_seconds(self, most: float) -> float:
        """Return for how long nothing is to be done, unless something happens; `most` at most."""
        left = most if self._until is None else self._until - time.monotonic()
        # What has waited long enough and is not taken waits for room, which comes with news.
        return min(most, left) if left > 0 else most

    def _is_waiting(self) -> bool:
        waiting = 0 < self._reader.arrived_bytes < FEW_BYTES and self._is_busy()
        if not waiting:
            self._until = None
            return False
        now = time.monotonic()
        if self._until is None:
            self._until = now + LONGEST_SECONDS
        elif now >= self._until:
            self._until = None
            return False
        return True
