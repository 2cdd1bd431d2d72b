"""How long few rows let the next ones gather."""

from __future__ import annotations

import itertools

import pytest

from postroom.relay.reading.gathering import Gathering


@pytest.fixture
def gathering() -> Gathering:
    """Return one whose turns are two apart, and at most twenty away."""
    return Gathering(pace_seconds=2.0, longest_seconds=20.0)


def test_one_stream_waits_for_the_pace_however_often_it_asks(gathering: Gathering) -> None:
    """A stream that is alone never waits for more than the pace."""
    now = 100.0
    for busy in (0.0, 0.5, 3.0, 60.0):
        now += busy
        waited = gathering.turn(now)
        assert waited == 2.0
        now += waited


@pytest.mark.parametrize("streams", [2, 4, 8, 10])
def test_several_streams_together_read_as_often_as_one(gathering: Gathering, streams: int) -> None:
    """Turns of all streams of a process are a pace apart."""
    asks = [100.0] * streams
    turns: list[float] = []
    for _ in range(50):
        now = min(asks)
        turns.append(now + gathering.turn(now))
        asks[asks.index(now)] = turns[-1]
    assert {after - before for before, after in itertools.pairwise(turns)} == {2.0}


def test_nobody_waits_for_longer_than_the_bound(gathering: Gathering) -> None:
    """Where there are more streams than turns, some share one."""
    waits = [gathering.turn(100.0) for _ in range(64)]
    assert max(waits) == 20.0
    assert waits[:3] == [2.0, 4.0, 6.0]


def test_turns_that_were_not_taken_are_no_credit(gathering: Gathering) -> None:
    """After a silence a stream waits for the pace again, and for nobody's old turn."""
    for _ in range(5):
        gathering.turn(100.0)
    assert gathering.turn(500.0) == 2.0
