"""The flight: the chunks that were sent and of which the broker has not said that all is stored."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.relay.saving.chunk import Chunk
    from postroom.topics import Topic

__all__ = ["Flight"]

# Enough to keep the broker busy while the next batch is read.
IN_FLIGHT_EVENTS = 10_000
IN_FLIGHT_BYTES = 16 << 20


class Flight:
    """Chunks in the order of their sending; used by the term's thread alone."""

    def __init__(self) -> None:
        self.events = 0
        # How many batches are under way, which keep the next ones waiting on their lanes.
        self.batches = 0
        self._payload_bytes = 0
        self._chunks: deque[Chunk] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether all that was sent is stored."""
        return not self._chunks

    @property
    def has_room(self) -> bool:
        """Whether more may be sent."""
        return self.events < IN_FLIGHT_EVENTS and self._payload_bytes < IN_FLIGHT_BYTES

    @property
    def has_replay(self) -> bool:
        """Whether anything under way may have been set aside by an earlier term."""
        return any(chunk.is_replay for chunk in self._chunks)

    def add(self, chunk: Chunk) -> None:
        """Take a chunk that was sent."""
        self._chunks.append(chunk)
        self.events += chunk.sent + len(chunk.poison)
        self._payload_bytes += chunk.payload_bytes
        self.batches += len(chunk.batched)

    def stored(self, chunk: Chunk, topic: Topic) -> None:
        """Note that a chunk's part on one topic is stored."""
        chunk.awaiting.discard(topic)
        self.batches -= topic in chunk.batched
        chunk.batched.discard(topic)

    def landed(self) -> Iterator[Chunk]:
        """Give back, in order, the chunks of which all is stored, and of all before them."""
        while self._chunks and not self._chunks[0].awaiting:
            chunk = self._chunks.popleft()
            self.events -= chunk.sent + len(chunk.poison)
            self._payload_bytes -= chunk.payload_bytes
            yield chunk

    def oldest(self) -> tuple[Chunk, float] | None:
        """Return the chunk that has waited longest, and for how many seconds."""
        if not self._chunks:
            return None
        chunk = self._chunks[0]
        return chunk, time.monotonic() - chunk.sealed
