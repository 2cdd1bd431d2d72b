"""Backlog: the order of each key, whatever is taken and released when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from postroom import handles
from postroom.inbox.backlog import Backlog
from postroom.inbox.handlers import Registry


def backlog(batch: int) -> Backlog:
    """Return an empty backlog of a handler with batches of this size."""
    found = Registry()
    handles("*", name="h", batch=batch, into=found)(lambda events: None)
    return Backlog(found.handlers["h"])


@given(
    st.lists(st.tuples(st.sampled_from("aabc"), st.integers(0, 3)), max_size=60),
    st.integers(1, 5),
)
def test_a_key_is_handled_in_order_and_never_twice_at_a_time(
    steps: list[tuple[str, int]], batch: int
) -> None:
    """Deliveries come out once, in the order of their key, one group of a key at a time."""
    waiting = backlog(batch)
    added: list[Any] = []
    out: list[Any] = []
    running: list[list[Any]] = []
    for number, (key, action) in enumerate(steps):
        added.append(SimpleNamespace(key=key, number=number))
        waiting.add(added[-1])
        if action:
            taken = waiting.take()
            assert len(taken) <= batch
            busy = {d.key for group in running for d in group}
            assert not busy & {d.key for d in taken}
            out += taken
            running.append(taken)
        if action > 1 and running:
            waiting.release(running.pop(0))
    while running or waiting.ready:
        for group in running:
            waiting.release(group)
        running = [taken] if (taken := waiting.take()) else []
        out += taken
    assert len(out) == len(added)
    for key in "abc":
        numbers = [d.number for d in out if d.key == key]
        assert numbers == sorted(numbers)


def test_deliveries_without_a_key_wait_for_nothing() -> None:
    """Each is its own key."""
    waiting = backlog(1)
    for number in range(3):
        waiting.add(SimpleNamespace(key=None, number=number))  # type: ignore[arg-type]  # its key is all that matters
    assert [len(waiting.take()) for _ in range(4)] == [1, 1, 1, 0]


def test_a_key_that_is_still_waited_for_stays_busy() -> None:
    """release() leaves out the keys of the parts of a batch that come next."""
    waiting = backlog(2)
    first, second, third = (SimpleNamespace(key="a", number=n) for n in range(3))
    for delivery in (first, second, third):
        waiting.add(delivery)  # type: ignore[arg-type]  # its key is all that matters
    assert waiting.take() == [first, second]
    waiting.release([first], [second])  # type: ignore[list-item]  # likewise
    assert not waiting.ready
    waiting.release([second])  # type: ignore[list-item]  # likewise
    assert waiting.take() == [third]
