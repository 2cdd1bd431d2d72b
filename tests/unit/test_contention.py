"""Who may run beside whom: contenders one after another, suspects alone."""

from __future__ import annotations

from unittest import mock

from postroom.inbox.scheduling.contention import (
    FIRST_MEMORY_SECONDS,
    LONGEST_WAIT_SECONDS,
    PATIENCE,
    Contention,
)
from postroom.inbox.scheduling.isolation import Isolation


def test_conflicts_of_one_moment_halve_once() -> None:
    """Twelve that ran side by side and met are one piece of news; the next ones are another."""
    contention = Contention()
    contention.met(running=12, seconds=0.0)
    waits = [contention.met(running=12, seconds=0.0)]
    waits += [contention.met(running=12, seconds=60.0) for _ in range(10)]
    assert waits == [0.0] * 11, "they wait for their turn, and for no time"
    assert contention.allows(5)
    assert not contention.allows(6)
    contention.met(running=6, seconds=0.0)
    assert not contention.allows(3)


def test_a_first_conflict_is_no_reason_to_take_turns() -> None:
    """While a collection is made all that write there meet once, and wait for a moment."""
    with mock.patch("time.monotonic") as clock:
        clock.return_value = 1000.0
        contention = Contention()
        for _ in range(3):
            assert all(0 < contention.met(running=8, seconds=0.5) < 1 for _ in range(8))
            assert contention.allows(8)
            clock.return_value += FIRST_MEMORY_SECONDS + 1.0
        contention.met(running=8, seconds=0.5)
        clock.return_value += 0.6
        assert contention.met(running=8, seconds=0.5) == 0.0, "it began behind the first one"
        assert not contention.allows(8)


def test_contenders_end_up_one_after_another_and_get_out_again() -> None:
    """A hot document is written by one at a time; when nobody meets, the limit is gone."""
    contention = Contention()
    while not contention.is_sole:
        contention.met(running=8, seconds=0.0)
    assert contention.allows(0)
    assert not contention.allows(1)
    for _ in range(PATIENCE * 8 * 2):
        contention.met_none(most=8, seconds=0.01)
    assert contention.is_over


def test_a_conflict_met_alone_waits_longer_each_time() -> None:
    """It comes from elsewhere: about a job's length first, never more than some seconds."""
    contention = Contention()
    while not contention.is_sole:
        contention.met(running=2, seconds=0.0)
    waits = [contention.met(running=1, seconds=0.0) for _ in range(12)]
    assert 0 < waits[0] < waits[-1] <= LONGEST_WAIT_SECONDS * 1.5


def test_waiting_for_turns_does_not_go_on_for_its_own_sake() -> None:
    """One conflict makes jobs take turns for a while; only another one renews that, for longer."""
    with mock.patch("time.monotonic") as clock:
        clock.return_value = 1000.0
        contention = Contention()
        contention.met(running=8, seconds=1.0)
        clock.return_value += 1.1
        contention.met(running=8, seconds=1.0)
        for _ in range(round(FIRST_MEMORY_SECONDS)):
            clock.return_value += 1.0
            contention.waited(running=1, seconds=1.0)
            assert not contention.allows(8)
        clock.return_value += 1.0
        assert not contention.is_on
        assert contention.allows(8)
        contention.waited(running=8, seconds=1.0)
        assert contention.allows(8), "what was waited for then was the last of the turns"
        clock.return_value += 5.0
        contention.waited(running=8, seconds=1.0)
        assert not contention.allows(8), "other workers take turns"
        clock.return_value += FIRST_MEMORY_SECONDS + 1.0
        assert contention.allows(8)
        contention.met(running=8, seconds=1.0)
        clock.return_value += 1.1
        contention.met(running=8, seconds=1.0)
        clock.return_value += FIRST_MEMORY_SECONDS * 1.9
        assert not contention.allows(8)


def test_a_suspect_waits_for_the_others_and_they_for_it() -> None:
    """Nobody gets in while one wants to be alone, or is."""
    isolation = Isolation()
    assert isolation.enter()
    first, second = object(), object()
    assert not isolation.enter_alone(first)
    assert not isolation.enter_alone(second)
    assert not isolation.enter()
    isolation.leave()
    assert not isolation.enter_alone(second), "the first one has asked before"
    assert isolation.enter_alone(first)
    assert not isolation.enter()
    assert not isolation.enter_alone(second)
    isolation.leave_alone()
    isolation.forget(second)
    assert isolation.enter()
