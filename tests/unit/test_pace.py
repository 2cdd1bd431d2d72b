"""Pace: an act is held to its rate, and is stopped while it waits."""

from __future__ import annotations

import time

import pytest

from postroom.pace import Pace


def test_without_a_rate_nothing_waits() -> None:
    """As fast as it goes, a thousand at a time."""
    pace, began = Pace(None), time.monotonic()
    for _ in range(1000):
        pace.wait(1_000_000)
    assert time.monotonic() - began < 0.5
    assert pace.at_once == 1000


@pytest.mark.parametrize(("rate", "at_once"), [(1e-300, 1), (1, 1), (7, 3), (100, 50), (1e5, 1000)])
def test_no_more_are_done_at_once_than_half_a_second_allows(rate: float, at_once: int) -> None:
    """However slow, one is."""
    assert Pace(rate).at_once == at_once


@pytest.mark.parametrize(("count", "steps"), [(1, 11), (10, 2)])
def test_so_many_a_second_and_the_first_ones_at_once(count: int, steps: int) -> None:
    """Ten more at a hundred a second take a tenth of one, in whichever steps."""
    pace, began = Pace(100), time.monotonic()
    for _ in range(steps):
        pace.wait(count)
    assert time.monotonic() - began >= 0.1


def test_what_waits_for_very_long_is_stopped_within_a_second() -> None:
    """Whoever is asked meanwhile ends the wait by an error."""
    pace = Pace(1e-300)
    pace.wait()
    began = time.monotonic()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pace.wait(meanwhile=stop)
    assert time.monotonic() - began < 5
