"""Standstill: what the process stood still is told from what a handler took."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

import pytest

from postroom.inbox.handling.call import Call
from postroom.inbox.handling.standstill import Standstill

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """The operating system's clock, as it is wanted."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    """Lend the clock."""
    found = Clock()
    with mock.patch("time.monotonic", found):
        yield found


def run(clock: Clock, standstill: Standstill, seconds: float) -> None:
    """Let time go by in which the process runs."""
    for _ in range(round(seconds * 4)):
        clock.now += 0.25
        standstill.beat()


def test_what_runs_is_counted_and_what_stands_still_is_not(clock: Clock) -> None:
    """Also before the first beat after it, which the handler's thread may forestall."""
    standstill = Standstill()
    call = Call(5.0, standstill=standstill)
    call.begin()
    run(clock, standstill, 2)
    clock.now += 60
    assert call.seconds == 2
    assert not call.is_overdue
    standstill.beat()
    run(clock, standstill, 2)
    clock.now += 30
    standstill.beat()
    assert call.seconds == 4
    run(clock, standstill, 1.25)
    assert call.seconds == 5.25
    assert call.is_overdue


def test_a_busy_machine_is_no_standstill(clock: Clock) -> None:
    """Beats that come a little late change nothing."""
    standstill = Standstill()
    call = Call(5.0, standstill=standstill)
    call.begin()
    for _ in range(4):
        clock.now += 1.5
        standstill.beat()
    assert call.seconds == 6
    assert call.is_overdue


def test_only_what_lies_behind_its_beginning_counts(clock: Clock) -> None:
    """A call that began behind a standstill, or in the midst of one, is excused for no more."""
    standstill = Standstill()
    clock.now += 60
    call = Call(5.0, standstill=standstill)
    call.begin()
    clock.now += 4
    standstill.beat()
    assert call.seconds == 0
    run(clock, standstill, 3)
    assert call.seconds == 3
