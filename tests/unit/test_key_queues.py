"""KeyQueues: the order of each key, whatever is taken and released when."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom import handles
from postroom.inbox.handling.handlers import Handler, Registry
from postroom.inbox.scheduling.key_queues import KeyQueues, Threads
from postroom.inbox.scheduling.schedule import Schedule
from postroom.inbox.scheduling.work import Work


def handler(batch: int = 1, name: str = "h") -> Handler:
    """Return a handler with batches of this size."""
    found = Registry()
    handles("*", name=name, batch=batch, into=found)(lambda events: None)
    return found.handlers[name]


def delivery(number: int, key: str | None, *handlers: Handler) -> Any:
    """Return what a backlog needs of a delivery."""
    return SimpleNamespace(key=key, number=number, handlers=list(handlers))


@given(
    st.lists(st.tuples(st.sampled_from("aabc"), st.integers(0, 2), st.integers(0, 3)), max_size=60),
    st.integers(1, 5),
)
def test_a_key_is_handled_in_order_and_by_nobody_else_meanwhile(
    steps: list[tuple[str, int, int]], size: int
) -> None:
    """Deliveries come out once for each handler, in the order of their key; a key waits."""
    single, batched = handler(1, "single"), handler(size, "batched")
    wanted = [[single], [batched], [single, batched]]
    waiting = KeyQueues()
    added: list[Any] = []
    out: list[Any] = []
    unfinished: list[Any] = []

    def take() -> None:
        works = waiting.take()
        taken = {id(d): d for work in works for d in work.deliveries}
        assert not {d.key for d in unfinished} & {d.key for d in taken.values()}
        for work in works:
            assert len(work.deliveries) <= work.handler.batch
            assert all(work.handler in d.handlers for d in work.deliveries)
        assert sum(len(w.deliveries) for w in works) == sum(len(d.handlers) for d in taken.values())
        out.extend(taken.values())
        unfinished.extend(taken.values())

    for number, (key, kind, action) in enumerate(steps):
        added.append(delivery(number, key, *wanted[kind]))
        waiting.add(added[-1])
        if action and waiting:
            take()
        if action > 1 and unfinished:
            waiting.done(unfinished.pop(0))
    while unfinished or waiting:
        while unfinished:
            waiting.done(unfinished.pop())
        if waiting:
            take()
    assert sorted(d.number for d in out) == list(range(len(added)))
    for key in "abc":
        numbers = [d.number for d in out if d.key == key]
        assert numbers == sorted(numbers)


def test_deliveries_without_a_key_wait_for_nothing() -> None:
    """Each is its own key."""
    waiting = KeyQueues()
    for number in range(3):
        waiting.add(delivery(number, None, handler()))
    assert [len(waiting.take()) for _ in range(3)] == [1, 1, 1]
    assert not waiting


def test_a_batch_takes_from_several_keys_and_several_of_one() -> None:
    """Up to its size, in the order of each key."""
    wants = handler(4)
    waiting = KeyQueues()
    for number, key in enumerate("aaabbc"):
        waiting.add(delivery(number, key, wants))
    first: Any
    second: Any
    third: Any
    ((_, first),) = waiting.take()
    assert [d.number for d in first] == [0, 1, 2, 3]
    ((_, second),) = waiting.take()
    assert [d.number for d in second] == [5]
    for each in first:
        waiting.done(each)
    ((_, third),) = waiting.take()
    assert [d.number for d in third] == [4]


def test_what_was_never_queued_frees_no_key() -> None:
    """A poison message is done without having been taken; its key stays as busy as it was."""
    waiting = KeyQueues()
    wants = handler()
    for number in range(2):
        waiting.add(delivery(number, "k", wants))
    waiting.take()
    waiting.done(delivery(7, "k"))
    assert not waiting


def grouped(**options: Any) -> Handler:
    """Return a handler whose events share transactions."""
    found = Registry()
    handles("*", name="grouped", into=found, **options)(lambda event: None)
    return found.handlers["grouped"]


def waiting_for(of: Handler, *keys: str | None) -> KeyQueues:
    """Return a backlog of a delivery for each of these keys, numbered."""
    found = KeyQueues()
    for number, key in enumerate(keys):
        found.add(delivery(number, key, of))
    return found


def taken(backlog: KeyQueues, threads: int = 1) -> list[list[int]]:
    """Return the numbers of all groups, one after another."""
    found = []
    while backlog:
        (portion,) = backlog.take(Threads(threads, threads))
        found.append([held.number for held in portion.deliveries])  # type: ignore[attr-defined]
    return found


def test_a_group_is_what_waits_up_to_its_size_each_key_in_its_order() -> None:
    """Of different keys or of one; what is behind in a key waits for the group's end."""
    assert taken(waiting_for(grouped(group=4), "a", "b", "a", None, "b")) == [[0, 2, 1, 4], [3]]
    assert taken(waiting_for(grouped(group=2), "a", "a", "a")) == [[0, 1]]


def test_no_group_takes_what_another_thread_could_do_beside_it() -> None:
    """With as many threads as keys wait nothing is handled together but one key's events."""
    of = grouped(group=16)
    assert taken(waiting_for(of, "a", "b", "c", "c"), 3) == [[0], [1], [2, 3]]
    assert taken(waiting_for(of, "a", "b", "c", "d"), 2)[0] == [0, 1]


class Busy(list[Work]):
    """What is under way in some threads, with half as much that waits for one."""

    def __init__(self, threads: int, work: list[Work] | None = None) -> None:
        super().__init__(work or ())
        self.threads = threads

    @property
    def free(self) -> int:
        """How many more may be started."""
        return self.threads * 3 // 2 - len(self)

    @property
    def in_groups(self) -> int:
        """How many events are in groups."""
        return sum(len(work.deliveries) for work in self if work.is_group)


def scheduled(of: Handler, count: int) -> Schedule:
    """Return a schedule in which so many events wait, each of a key of its own."""
    schedule = Schedule()
    for number in range(count):
        schedule.add(delivery(number, None, of))
    return schedule


def started(schedule: Schedule, busy: Any) -> list[int]:
    """Start all that may be, and return how many events are in each."""
    sizes = []
    while (work := schedule.take(busy)) is not None:
        busy.append(work)
        sizes.append(len(work.deliveries))
    return sizes


def test_the_first_place_that_comes_free_leaves_the_others_their_part() -> None:
    """Behind a moment in which all threads stood still one group does not take all that waits."""
    of = grouped(group=16)
    alone = [Work(handler=of, deliveries=(delivery(99, None, of),))] * 11
    assert started(scheduled(of, 16), Busy(8, alone)) == [2]


@pytest.mark.parametrize("count", [3, 8, 20, 60, 128])
def test_what_is_less_than_full_groups_is_divided_among_the_free_threads(count: int) -> None:
    """As evenly as whole events are: nobody waits for the commits of others beside idle threads."""
    sizes = started(scheduled(grouped(group=16), count), Busy(8))
    assert sum(sizes) == count
    assert len(sizes) == min(count, 8)
    assert max(sizes) - min(sizes) <= 1


def test_beside_full_groups_free_threads_find_their_part() -> None:
    """What others have makes no group larger than leaves each free thread something."""
    of = grouped(group=16)
    full = Work(handler=of, deliveries=[delivery(99, None, of)] * 16)
    assert started(scheduled(of, 4), Busy(8, [full] * 4)) == [1, 1, 1, 1]


@pytest.mark.parametrize(("threads", "full"), [(8, 16), (32, 15), (64, 7)])
def test_at_a_long_backlog_groups_are_as_large_as_what_is_held_makes_them(
    threads: int, full: int
) -> None:
    """500 events are held: each thread has its part of them, up to a whole group, for good."""
    of, busy, rng = grouped(group=16), Busy(threads), random.Random(threads)
    schedule = scheduled(of, 500)
    sizes = started(schedule, busy)
    assert max(sizes) == min(16, -(-500 // threads))
    sizes.clear()
    for _ in range(5_000):
        over = busy.pop(rng.randrange(min(threads, len(busy))))
        for held in over.deliveries:
            schedule.done(held)
            schedule.add(delivery(0, None, of))
        sizes += started(schedule, busy)
    assert sum(sizes) / len(sizes) >= full


def test_what_has_an_effect_behind_its_commit_shares_it_with_other_keys_alone() -> None:
    """After-effects of one transaction come in no order."""
    of = grouped(group=16, after_commit=lambda event: None)
    assert taken(waiting_for(of, "a", "a", "b")) == [[0, 2]]
