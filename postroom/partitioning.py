"""Partitioning: into how many outbox partitions an outbox is divided, and which one has a key.

The hash is the one that Pulsar's clients for Java, C++ and Go define alike as Murmur3_32
(`hashingScheme` of their producers): MurmurHash3 for x86, 32 bits, of the key's UTF-8, seed 0,
without its sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NewType

import mmh3

__all__ = ["DEFAULT_PARTITION", "MOST_PARTITIONS", "OutboxPartition", "Partitioning", "murmur3_32"]

# A named part of the outbox, with an order of its own. Topic partitions are Pulsar's.
OutboxPartition = NewType("OutboxPartition", str)
DEFAULT_PARTITION = OutboxPartition("default")
MOST_PARTITIONS = 1024
WITHOUT_SIGN = 0x7FFFFFFF


def murmur3_32(key: str) -> int:
    """Hash a key as Pulsar's clients do, to a number of 31 bits."""
    return mmh3.hash(key, 0, signed=False) & WITHOUT_SIGN


@dataclass(frozen=True, kw_only=True)
class Partitioning:
    """`count` outbox partitions of one outbox, by the name `base`; a change begins a `generation`.

    Of one of several, outbox partition i goes to topic partition i of every topic. The only one of
    its generation goes to whole topics.
    """

    base: str = DEFAULT_PARTITION
    count: int = 1
    generation: int = 1

    @cached_property
    def names(self) -> tuple[OutboxPartition, ...]:
        """The outbox partitions by name, in the order of their indexes."""
        if self.count == 1 and self.generation <= 1:
            return (OutboxPartition(self.base),)
        stem = self.base if self.generation <= 1 else f"{self.base}.{self.generation}"
        return tuple(OutboxPartition(f"{stem}-{index}") for index in range(self.count))

    @property
    def is_divided(self) -> bool:
        """Whether there is more than one."""
        return self.count > 1

    def index_of(self, name: str) -> int | None:
        """Return which topic partition an outbox partition goes to, None for the whole topic.

        Raises:
            ValueError: it is none of these.

        """
        index = self.names.index(OutboxPartition(name))
        return index if self.is_divided else None

    def of_key(self, key: str) -> int:
        """Return the index of the outbox partition that has all events of a key."""
        return murmur3_32(key) % self.count
