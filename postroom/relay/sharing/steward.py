"""The steward: decides, round by round, what its worker asks for, wants and gives."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from postroom.relay.sharing.plan import Plan, Sharer, plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postroom.store.holdings import Holding
    from postroom.store.values import OutboxPartition

__all__ = ["Steward"]

KNOCK_SECONDS = 0.5
# A lock that is held is refused in two milliseconds. Over one of a frozen holder the broker waits
# five seconds for a sign of life, and then closes all that came over the same connection.
SLOW_SECONDS = 0.5
OVERDUE_SECONDS = 1.5


class Steward:
    """Remembers what a plan needs beside the rows: who fell, and what has been free for how long.

    Used by the pool's thread alone; times are given to it, in seconds of a monotonic clock.
    """

    def __init__(
        self, name: str, *, most: int, pins: frozenset[OutboxPartition] | None = None
    ) -> None:
        self._sharer = Sharer(name=name, most=most, pins=pins)
        self._holders: dict[OutboxPartition, str] = {}
        self._fallen: set[str] = set()
        self._doubted: dict[str, OutboxPartition] = {}
        self._unsettled: dict[tuple[OutboxPartition, str | None], float] = {}
        self._knocked: dict[str, tuple[float, int]] = {}

    @property
    def is_pinned(self) -> bool:
        """Whether its worker is there for some outbox partitions and no others."""
        return self._sharer.pins is not None

    def answered(self, partition: OutboxPartition, *, is_ours: bool) -> None:
        """Note what became of a lock that was asked for."""
        other = self._holders.get(partition, self._sharer.name)
        if other == self._sharer.name:
            return
        if is_ours:
            self._fallen.add(other)
        else:
            self._doubted[other] = partition

    def decide(
        self,
        holdings: Sequence[Holding],
        *,
        held: frozenset[OutboxPartition],
        asked: Mapping[OutboxPartition, float],
        now: float,
    ) -> Plan:
        """Return the plan of this round: `asked` are locks that are being asked for, since when.

        Another worker's lock is asked for now and then, to see whether that one lives.
        """
        self._learn(holdings, asked, now)
        sharer = dataclasses.replace(
            self._sharer,
            held=held,
            asked=frozenset(asked),
            fallen=frozenset(self._fallen),
            overdue=self._overdue(holdings, now),
        )
        found = plan(holdings, sharer)
        self._note_unsettled(holdings, found, now)
        found.ask += self._knocks(found, now)
        return found

    def _learn(
        self, holdings: Sequence[Holding], asked: Mapping[OutboxPartition, float], now: float
    ) -> None:
        self._holders = {each.partition: each.holder for each in holdings if each.holder}
        for holder, partition in self._doubted.items():
            if self._holders.get(partition) == holder:
                self._fallen.discard(holder)  # it was refused, and nobody else has taken it since
        self._doubted.clear()
        self._fallen &= set(self._holders.values())
        for partition, since in asked.items():
            other = self._holders.get(partition, self._sharer.name)
            if now - since > SLOW_SECONDS and other != self._sharer.name:
                self._fallen.add(other)

    def _overdue(self, holdings: Sequence[Holding], now: float) -> frozenset[OutboxPartition]:
        return frozenset(
            each.partition
            for each in holdings
            if now - self._unsettled.get((each.partition, each.wanted_by), now) > OVERDUE_SECONDS
        )

    def _note_unsettled(self, holdings: Sequence[Holding], found: Plan, now: float) -> None:
        self._unsettled = {
            about: self._unsettled.get(about, now)
            for each in holdings
            if each.wanted_by is not None or each.partition in found.free
            for about in [(each.partition, each.wanted_by)]
        }

    def _knocks(self, found: Plan, now: float) -> list[OutboxPartition]:
        knocks = []
        for other, theirs in found.knocks.items():
            at, count = self._knocked.get(other, (float("-inf"), 0))
            if now - at >= KNOCK_SECONDS:
                self._knocked[other] = now, count + 1
                knocks.append(theirs[count % len(theirs)])
        return [each for each in knocks if each not in found.ask]
