"""Layout: into how many outbox partitions a run's outbox is divided, and where each event belongs.

The hash is written down here once more, so that the judge does not believe what it judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom.partitioning import Partitioning

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from tests.chaos.accounts import Committed

__all__ = ["Layout", "murmur3_32"]

BASE = "default"
MASK = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`count` outbox partitions, each to the topic partition of its number; 1 is no division.

    A change of the count begins another `generation`, whose outbox partitions have other names.
    """

    count: int = 1
    generation: int = 1

    @property
    def names(self) -> Sequence[str]:
        """The outbox partitions."""
        stem = BASE if self.generation == 1 else f"{BASE}.{self.generation}"
        return [BASE] if self.count == 1 else [f"{stem}-{i}" for i in range(self.count)]

    def place(self, key: str | None, dice: random.Random) -> str:
        """Return the outbox partition of a row as a writer does, any of them without a key."""
        writer = Partitioning(count=self.count)
        return self.names[dice.randrange(self.count) if key is None else writer.of_key(key)]

    def doubled(self) -> Layout:
        """Return what follows it when the outbox is divided anew into twice as many."""
        return Layout(count=2 * self.count, generation=self.generation + 1)

    def logs(self, topics: Sequence[str]) -> Sequence[str]:
        """Return the topics that are logs of their own: themselves, or their topic partitions."""
        if self.count == 1:
            return topics
        return [f"{topic}-partition-{i}" for topic in topics for i in range(self.count)]

    def is_misplaced(self, event: Committed, log: str) -> bool:
        """Say whether an event is where neither its key nor its outbox partition would lead."""
        if self.count == 1:
            return False
        index = int(log.rpartition("-")[2])
        if event.key is not None and murmur3_32(event.key) % self.count != index:
            return True
        return event.partition != self.names[index]


def murmur3_32(key: str) -> int:
    """Hash as Pulsar's clients do when they are set to Murmur3_32Hash."""
    data, found = key.encode(), 0
    tail = len(data) & ~3
    for at in range(0, tail, 4):
        found ^= _scrambled(int.from_bytes(data[at : at + 4], "little"))
        found = (_rotated(found, 13) * 5 + 0xE6546B64) & MASK
    if data[tail:]:
        found ^= _scrambled(int.from_bytes(data[tail:], "little"))
    found ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        found = ((found ^ (found >> shift)) * factor) & MASK
    return (found ^ (found >> 16)) & 0x7FFFFFFF


def _scrambled(word: int) -> int:
    return (_rotated((word * 0xCC9E2D51) & MASK, 15) * 0x1B873593) & MASK


def _rotated(word: int, by: int) -> int:
    return ((word << by) | (word >> (32 - by))) & MASK
