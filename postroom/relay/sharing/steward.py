"""The steward: decides, round by round, what its worker asks for, wants and gives."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

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


class _Unsettled(NamedTuple):
    """An outbox partition that somebody wants, or that is free, or both."""

    partition: OutboxPartition
    wanted_by: str | None
    is_free: bool


class Steward:
    """Remembers what a plan needs beside the rows: who fell, and what has been free for how long.

    Used by the pool's thread alone, but for is_pinned and would_take, which go by what never
    changes; times are given to it, in seconds of a monotonic clock.
    """

    def __init__(
        self, name: str, *, most: int, pins: frozenset[OutboxPartition] | None = None
    ) -> None:
        self._sharer = Sharer(name=name, most=most, pins=pins)
        self._holders: dict[OutboxPartition, str] = {}
        self._fallen: set[str] = set()
        self._doubted: dict[str, OutboxPartition] = {}
        self._unsettled: dict[_Unsettled, float] = {}
        self._knocked: dict[str, tuple[float, int]] = {}

    @property
    def is_pinned(self) -> bool:
        """Whether its worker is there for some outbox partitions and no others."""
        return self._sharer.pins is not None

    def would_take(
        self, partitions: Sequence[OutboxPartition], *, held: frozenset[OutboxPartition]
    ) -> list[OutboxPartition]:
        """Return which of the partitions its worker would take over, were they free now."""
        if len(held) >= self._sharer.most:
            return []
        pins = self._sharer.pins
        return [each for each in partitions if each not in held and (pins is None or each in pins)]

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
            overdue=self._overdue(holdings, held, now),
        )
        found = plan(holdings, sharer)
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

    def _overdue(
        self, holdings: Sequence[Holding], held: frozenset[OutboxPartition], now: float
    ) -> frozenset[OutboxPartition]:
        about = {each.partition: self._unsettled_of(each, held) for each in holdings}
        self._unsettled = {
            each: self._unsettled.get(each, now) for each in about.values() if each is not None
        }
        return frozenset(
            partition
            for partition, each in about.items()
            if each is not None and now - self._unsettled[each] > OVERDUE_SECONDS
        )

    def _unsettled_of(
        self, holding: Holding, held: frozenset[OutboxPartition]
    ) -> _Unsettled | None:
        """Return what is to be settled about an outbox partition, if anything is.

        Who wants it has that long to take it from when it is free, however long its holder took to
        give it: others would take it instead, on a busy machine again and again.
        """
        gone = {None, self._sharer.name, *self._fallen}
        is_free = holding.partition not in held and holding.holder in gone
        if not is_free and holding.wanted_by is None:
            return None
        return _Unsettled(holding.partition, holding.wanted_by, is_free)

    def _knocks(self, found: Plan, now: float) -> list[OutboxPartition]:
        knocks = []
        for other, theirs in found.knocks.items():
            at, count = self._knocked.get(other, (float("-inf"), 0))
            if now - at >= KNOCK_SECONDS:
                self._knocked[other] = now, count + 1
                knocks.append(theirs[count % len(theirs)])
        return [each for each in knocks if each not in found.ask]
