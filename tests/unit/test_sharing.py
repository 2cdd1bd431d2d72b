"""Sharing: whatever is taken, killed and wanted at once, shares differ by at most one later."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.relay.sharing.plan import Sharer, plan
from postroom.relay.sharing.steward import Steward
from postroom.store.holdings import Holding
from postroom.store.values import OutboxPartition

if TYPE_CHECKING:
    from collections.abc import Iterable

ROUND_SECONDS = 0.25
QUIET_SECONDS = 10.0


def names(count: int) -> list[OutboxPartition]:
    """Return names of outbox partitions."""
    return [OutboxPartition(f"p-{number}") for number in range(count)]


class World:
    """Locks, rows and workers: what MongoDB and Pulsar are to stewards."""

    def __init__(self, count: int) -> None:
        self.partitions = names(count)
        self.locks: dict[OutboxPartition, str] = {}
        self.rows = {each: Holding(partition=each) for each in self.partitions}
        self.stewards: dict[str, Steward] = {}
        self.most: dict[str, int] = {}
        self.pins: dict[str, frozenset[OutboxPartition]] = {}
        self.now, self.moves = 0.0, 0
        self.drain_seconds = 0.0
        self._draining: dict[OutboxPartition, float] = {}

    def join(self, name: str, *, most: int = 99, pins: Iterable[OutboxPartition] = ()) -> None:
        """Have a worker come."""
        self.most[name] = most
        if pins:
            self.pins[name] = frozenset(pins)
        self.stewards[name] = Steward(name, most=most, pins=self.pins.get(name))

    def kill(self, name: str) -> None:
        """End a worker: its locks are free, and the rows say nothing of it."""
        self.stewards.pop(name, None)
        self.locks = {p: holder for p, holder in self.locks.items() if holder != name}

    def leave(self, name: str) -> None:
        """Have a worker end in order."""
        for partition in [p for p, holder in self.locks.items() if holder == name]:
            self._write(partition, holder=None, is_pinned=False)
        self.kill(name)

    def lose_a_lock(self, partition: OutboxPartition) -> None:
        """End a term by an error: the lock is free for a moment."""
        self.locks.pop(partition, None)

    def turn(self, name: str, seen: dict[OutboxPartition, Holding] | None = None) -> None:
        """Have a worker do one round, by what it has read now or some time ago."""
        steward = self.stewards[name]
        held = frozenset(p for p, holder in self.locks.items() if holder == name)
        view = list((seen or self.rows).values())
        found = steward.decide(view, held=held, asked={}, now=self.now)
        for partition in found.decline:
            if view[self.partitions.index(partition)].wanted_by == self.rows[partition].wanted_by:
                self._write(partition, wanted_by=None, is_wanted_pinned=False)
        for partition in set(found.give) & held:
            self._draining.setdefault(partition, self.now + self.drain_seconds)
        self._end_drains()
        for partition in found.want:
            of = view[self.partitions.index(partition)].holder
            row = self.rows[partition]
            if row.holder == of and (row.wanted_by is None or name in self.pins):
                self._write(partition, wanted_by=name, is_wanted_pinned=name in self.pins)
        for partition in found.ask:
            self._ask(name, partition)

    def _end_drains(self) -> None:
        for partition in [p for p, until in self._draining.items() if until <= self.now]:
            del self._draining[partition]
            if self.locks.pop(partition, None):
                self._write(partition, holder=None, is_pinned=False)

    def _ask(self, name: str, partition: OutboxPartition) -> None:
        is_ours = partition not in self.locks and (
            sum(holder == name for holder in self.locks.values()) < self.most[name]
        )
        if is_ours:
            self.locks[partition] = name
            self.moves += 1
            self.rows[partition] = Holding(
                partition=partition, holder=name, is_pinned=name in self.pins
            )
        self.stewards[name].answered(partition, is_ours=is_ours)

    def _write(self, partition: OutboxPartition, **changes: Any) -> None:
        row = self.rows[partition]
        fields = {name: getattr(row, name) for name in Holding.__dataclass_fields__}
        self.rows[partition] = Holding(**{**fields, **changes})

    def settle(self, seconds: float = QUIET_SECONDS) -> None:
        """Let all workers go on for a while."""
        end = self.now + seconds
        while self.now < end:
            for name in sorted(self.stewards):
                self.turn(name)
            self.now += ROUND_SECONDS

    def shares(self) -> Counter[str]:
        """Count what each worker serves."""
        return Counter(dict.fromkeys(self.stewards, 0)) + Counter(self.locks.values())

    def spread(self) -> int:
        """Return by how much shares differ."""
        shares = [sum(h == name for h in self.locks.values()) for name in self.stewards]
        return max(shares) - min(shares)


WORKERS = "abcde"
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["turn", "turn", "turn", "stale", "join", "kill", "leave", "lose"]),
        st.sampled_from(WORKERS),
        st.integers(0, 31),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(count=st.integers(1, 16), events=EVENTS)
def test_shares_come_to_differ_by_at_most_one(
    count: int, events: list[tuple[str, str, int]]
) -> None:
    """Whatever happened before: within ten seconds all is served, evenly, and nothing moves."""
    world, seen = World(count), None
    world.join("a")
    for what, name, number in events:
        partition = world.partitions[number % count]
        if what == "join" and name not in world.stewards:
            world.join(name)
        elif what == "kill" and len(world.stewards) > 1:
            world.kill(name)
        elif what == "leave" and len(world.stewards) > 1 and name in world.stewards:
            world.leave(name)
        elif what == "lose":
            world.lose_a_lock(partition)
        elif what == "turn" and name in world.stewards:
            seen = dict(world.rows)
            world.turn(name)
        elif what == "stale" and name in world.stewards:
            world.turn(name, seen)
        world.now += 0.1
    world.settle()
    assert len(world.locks) == count
    assert world.spread() <= 1
    moves = world.moves
    world.settle()
    assert world.moves == moves


@given(count=st.integers(1, 32), members=st.integers(1, 8))
def test_nothing_moves_without_need(count: int, members: int) -> None:
    """Who joins gets the fair share by as many moves as it has then, and no other moves."""
    world = World(count)
    world.join("a")
    world.settle(2)
    assert world.moves == count
    for number in range(1, members):
        before = world.moves
        world.join(f"m{number}")
        world.settle(5)
        assert world.spread() <= 1
        assert world.moves - before == count // (number + 1)


@pytest.mark.parametrize("joining", [1, 2, 4])
def test_several_that_join_at_once_share_alike(joining: int) -> None:
    """Eight outbox partitions, one worker, others at once."""
    world = World(8)
    world.join("a")
    world.settle(2)
    for number in range(joining):
        world.join(f"b{number}")
    world.settle(5)
    assert world.spread() <= 1


def test_a_share_that_is_limited_leaves_the_rest_to_others() -> None:
    """Who may serve two serves two; where all are limited, some wait until one comes who may."""
    world = World(8)
    world.join("a", most=2)
    world.settle(5)
    assert world.shares()["a"] == 2
    world.join("b")
    world.settle(5)
    assert world.shares() == {"a": 2, "b": 6}


def test_who_is_pinned_gets_its_own_from_whoever_has_them() -> None:
    """And keeps them; what is left is divided among the others."""
    world = World(8)
    world.join("a")
    world.settle(2)
    world.join("b", pins=world.partitions[:3])
    world.settle(5)
    assert {p for p, holder in world.locks.items() if holder == "b"} == set(world.partitions[:3])
    world.join("c")
    world.settle(5)
    assert sorted(world.shares().values()) == [2, 3, 3]
    world.kill("b")
    world.settle(5)
    assert world.shares() == {"a": 4, "c": 4}


def test_a_killed_worker_is_replaced_within_two_seconds() -> None:
    """One knock tells of all its locks."""
    world = World(8)
    for name in "abc":
        world.join(name)
    world.settle()
    world.kill("b")
    world.settle(1.25)
    assert len(world.locks) == 8
    assert world.spread() == 0


def test_a_knock_that_is_not_answered_has_all_of_the_rivals_locks_asked_for() -> None:
    """The broker waits five seconds for a frozen worker's connection, once for all of them."""
    rows = [Holding(partition=each, holder="frozen") for each in names(4)]
    steward = Steward("a", most=9)
    first = steward.decide(rows, held=frozenset(), asked={}, now=0.0).ask
    assert len(first) == 1
    asked = {first[0]: 0.0}
    assert set(steward.decide(rows, held=frozenset(), asked=asked, now=0.25).ask) == set(first)
    later = steward.decide(rows, held=frozenset(), asked=asked, now=0.75)
    assert set(later.ask) == set(names(4))


@pytest.mark.parametrize(
    ("most", "pins", "would_take"),
    [(9, None, "23"), (3, None, "23"), (2, None, ""), (9, "02", "2"), (9, "01", ""), (2, "02", "")],
)
def test_what_a_worker_would_take_over_goes_by_its_room_and_its_pins(
    most: int, pins: str | None, would_take: str
) -> None:
    """So the doctor knows of which outbox partitions nobody would."""
    four = names(4)
    pinned = None if pins is None else frozenset(four[int(number)] for number in pins)
    found = Steward("a", most=most, pins=pinned).would_take(four, held=frozenset(four[:2]))
    assert found == [four[int(number)] for number in would_take]


def test_a_wish_that_is_no_longer_due_is_struck_out() -> None:
    """It would keep the partition from those that knock."""
    rows = [
        Holding(partition=each, holder=holder, wanted_by=wanted_by)
        for each, holder, wanted_by in zip(
            names(4), ["a", "a", "b", "b"], ["b", None, None, None], strict=True
        )
    ]
    found = plan(rows, Sharer(name="a", most=9, held=frozenset(names(2))))
    assert (found.decline, found.give) == (names(1), [])


def test_a_wish_of_a_dead_worker_keeps_nothing_from_being_served() -> None:
    """Given to one that does not come, it is taken by whoever is there."""
    world = World(4)
    world.join("a")
    world.settle(2)
    world.join("b")
    world.turn("b")
    world.kill("b")
    world.settle(5)
    assert world.shares() == {"a": 4}


@pytest.mark.parametrize("drain_seconds", [1.0, 2.0, 5.0])
def test_what_is_given_slowly_goes_to_who_asked_for_it(drain_seconds: float) -> None:
    """A busy broker takes long over what is under way; nobody else takes it meanwhile."""
    world = World(8)
    world.join("a")
    world.join("b")
    world.settle(2)
    world.drain_seconds, moved = drain_seconds, world.moves
    world.join("c")
    world.settle(drain_seconds + 2)
    assert sorted(world.shares().values()) == [2, 3, 3]
    assert world.moves == moved + 2
