"""The plan: what one relay worker asks for, wants and gives, by what the checkpoint rows say.

Nobody appoints anybody. Each worker reads the same rows and does its own part; where two have read
different ones, locks keep them apart and the next round mends it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from postroom.store.holdings import Holding
    from postroom.store.values import OutboxPartition

__all__ = ["Plan", "Sharer", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharer:
    """The worker that a plan is for, and what it knows beside the rows.

    It serves `most` outbox partitions at most. `held` are those whose locks it has, `asked` those
    whose locks it asks for at this moment, and `pins` those it is there for if it is not there for
    all. `fallen` are workers that are taken to serve no more. What is `overdue` has been free, or
    wanted by somebody, for so long that whoever can takes it.
    """

    name: str
    most: int
    held: frozenset[OutboxPartition] = frozenset()
    asked: frozenset[OutboxPartition] = frozenset()
    pins: frozenset[OutboxPartition] | None = None
    fallen: frozenset[str] = frozenset()
    overdue: frozenset[OutboxPartition] = frozenset()


@dataclass(slots=True, kw_only=True)
class Plan:
    """What to do now: locks to ask for, rows to mark, rows to give, marks to strike out.

    `knocks` are the outbox partitions of each other worker at whose lock it may be looked
    whether that one lives.
    """

    ask: list[OutboxPartition] = field(default_factory=list)
    want: list[OutboxPartition] = field(default_factory=list)
    give: list[OutboxPartition] = field(default_factory=list)
    decline: list[OutboxPartition] = field(default_factory=list)
    knocks: dict[str, list[OutboxPartition]] = field(default_factory=dict)


def plan(holdings: Sequence[Holding], sharer: Sharer) -> Plan:
    """Say what a worker does now; each hand-over brings the shares nearer to each other.

    A partition is given only to who has two fewer, so that the sum of the squares of all shares
    falls with each: it ends, and nothing moves to and fro. Pinned ones go to who is pinned to them.
    """
    seen = _Seen(holdings, sharer)
    found = Plan()
    _give(seen, found)
    if sharer.pins is None:
        _ask(seen, found)
        _want(seen, found)
    else:
        _claim_pins(seen, found)
    _look_after_others(seen, found)
    return found


class _Seen:
    """The rows as one worker sees them."""

    def __init__(self, holdings: Sequence[Holding], sharer: Sharer) -> None:
        self.sharer = sharer
        self.holdings = holdings
        # What a worker that is pinned serves is no part of what is divided.
        self.common = [each for each in holdings if not self._is_pinned(each)]
        self.mine = sum(self.holder(each) == sharer.name for each in holdings)
        self.shares: Counter[str] = Counter({sharer.name: 0} if sharer.pins is None else {})
        for each in self.common:
            holder = self.holder(each) or each.wanted_by
            if holder is not None:
                self.shares[holder] += 1

    def holder(self, holding: Holding) -> str | None:
        """Return who has the lock, None where nobody has by what is known here."""
        me = self.sharer
        if holding.partition in me.held:
            return me.name
        gone = holding.holder == me.name or holding.holder in me.fallen
        return None if gone else holding.holder

    def _is_pinned(self, holding: Holding) -> bool:
        me = self.sharer
        if self.holder(holding) == me.name:
            return me.pins is not None
        return holding.is_pinned and self.holder(holding) is not None

    def fair(self) -> int:
        """Return the share that nobody exceeds where all are served."""
        members = {*self.shares, *(h.wanted_by for h in self.common if h.wanted_by)}
        return -(-len(self.common) // max(1, len(members)))

    def is_for_others(self, holding: Holding) -> bool:
        return (
            holding.wanted_by not in {None, self.sharer.name}
            and holding.partition not in self.sharer.overdue
        )


def _give(seen: _Seen, found: Plan) -> None:
    me, shares = seen.sharer, seen.shares.copy()
    for each in seen.holdings:
        wanted_by = each.wanted_by
        if seen.holder(each) != me.name or wanted_by is None:
            continue
        balanced = shares[me.name] - shares[wanted_by] < 2
        if me.pins is not None or wanted_by == me.name or (balanced and not each.is_wanted_pinned):
            found.decline.append(each.partition)
            continue
        found.give.append(each.partition)
        shares[me.name] -= 1
        shares[wanted_by] += 1


def _ask(seen: _Seen, found: Plan) -> None:
    me = seen.sharer
    coming = [
        each.partition
        for each in seen.common
        if each.wanted_by == me.name and seen.holder(each) != me.name
    ]
    found.ask = sorted(me.asked)
    found.ask += [each for each in coming if each not in me.asked][: _room(seen, found, me.most)]
    _ask_for_free(seen, found, limit=me.most, only=me.overdue)
    _ask_for_free(seen, found, limit=min(me.most, seen.fair()))


def _ask_for_free(
    seen: _Seen, found: Plan, *, limit: int, only: Collection[OutboxPartition] | None = None
) -> None:
    free = [
        each.partition
        for each in seen.common
        if seen.holder(each) is None
        and not seen.is_for_others(each)
        and each.partition not in found.ask
        and (only is None or each.partition in only)
    ]
    found.ask += free[: _room(seen, found, limit)]


def _room(seen: _Seen, found: Plan, limit: int) -> int:
    return max(0, limit - seen.mine - len(found.ask))


def _want(seen: _Seen, found: Plan) -> None:
    """Mark rows of whoever has two more than this worker will have."""
    me, shares = seen.sharer, seen.shares.copy()
    mine = seen.mine - len(found.give) + len(found.ask)
    outgoing = [each for each in seen.common if each.wanted_by and seen.holder(each) is not None]
    shares.subtract(holder for each in outgoing if (holder := seen.holder(each)) is not None)
    unmarked = [
        each
        for each in seen.common
        if not each.wanted_by and seen.holder(each) not in {None, me.name}
    ]
    while mine < me.most and unmarked:
        each = max(unmarked, key=lambda h: shares[seen.holder(h) or ""])
        holder = seen.holder(each) or ""
        if shares[holder] - mine < 2:
            return
        found.want.append(each.partition)
        unmarked.remove(each)
        shares[holder] -= 1
        mine += 1


def _claim_pins(seen: _Seen, found: Plan) -> None:
    me = seen.sharer
    for each in _pinned(seen.holdings, me.pins or ()):
        if seen.holder(each) == me.name:
            continue
        if seen.holder(each) is None or each.wanted_by == me.name:
            found.ask.append(each.partition)
        elif not each.is_pinned:
            found.want.append(each.partition)


def _pinned(holdings: Iterable[Holding], pins: Iterable[OutboxPartition]) -> list[Holding]:
    wanted = set(pins)
    return [each for each in holdings if each.partition in wanted]


def _look_after_others(seen: _Seen, found: Plan) -> None:
    me = seen.sharer
    if not _room(seen, found, me.most):
        return  # it could keep nothing of what it finds
    watched = seen.holdings if me.pins is None else _pinned(seen.holdings, me.pins)
    for each in watched:
        holder = seen.holder(each)
        if holder not in {None, me.name} and not seen.is_for_others(each):
            found.knocks.setdefault(holder or "", []).append(each.partition)
