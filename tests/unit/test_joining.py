"""Few rows that come while a batch is under way leave together behind it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from postroom.relay.reading.batch import Batch
from postroom.relay.reading.joining import FEW_BYTES, LONGEST_SECONDS, Joining
from postroom.relay.reading.lookahead import Lookahead
from postroom.relay.reading.reader import Reader
from postroom.relay.reading.replay import Replay
from postroom.store.checkpoints import Point
from postroom.store.codec import id_of
from postroom.store.values import ResumeToken
from tests.waiting import wait_until


class Bench:
    """A joining behind a reader that nobody starts: batches are put where it would put them."""

    def __init__(self) -> None:
        self.is_busy = False
        self.reader = Reader(tell=lambda _: None)
        self.replay = Replay()
        ahead = Lookahead(self.reader, self.replay, met=lambda *_: None)
        self.joining = Joining(ahead, self.reader, self.replay, is_busy=lambda: self.is_busy)

    def arrive(self, *numbers: int, size: int = 100, ends_with: str = "") -> None:
        """Have a batch come, with a row for each number."""
        rows: list[Any] = [{"_id": number} for number in numbers]
        committed_at = datetime.fromtimestamp(numbers[0], UTC) if numbers else None
        self.reader.arrived(
            Batch(
                slices=[rows],
                point=Point(token=ResumeToken({"_data": str(numbers)})),
                size=size,
                ends_with=ends_with,
                committed_at=committed_at,
            )
        )

    def taken(self) -> list[int] | None:
        """Return the numbers of the rows that are to be sent now, or None."""
        batch = self.joining.take(())
        return None if batch is None else _numbers(batch)


def _numbers(batch: Batch) -> list[Any]:
    return [id_of(row) for rows in batch.slices for row in rows]


@pytest.fixture
def bench() -> Bench:
    """Return one whose replay is over."""
    made = Bench()
    made.replay.is_over = True
    return made


def test_rows_that_come_while_nothing_is_under_way_do_not_wait(bench: Bench) -> None:
    """And are the batch that they came as."""
    bench.arrive(1)
    assert bench.taken() == [1]
    assert bench.taken() is None


def test_few_rows_wait_for_the_batch_under_way_and_leave_together(bench: Bench) -> None:
    """In their order, with the last one's point and the first one's time."""
    bench.is_busy = True
    for number in (1, 2, 3):
        bench.arrive(number)
        assert bench.taken() is None
    assert 0 < bench.joining.wait_seconds(60) <= LONGEST_SECONDS
    bench.is_busy = False
    batch = bench.joining.take(())
    assert batch is not None
    assert _numbers(batch) == [1, 2, 3]
    assert batch.point == Point(token=ResumeToken({"_data": "(3,)"}))
    assert batch.committed_at == datetime.fromtimestamp(1, UTC)
    assert batch.size == 300
    assert bench.joining.wait_seconds(60) == 60


def test_a_broker_that_takes_long_holds_up_few_rows_for_a_moment_only(bench: Bench) -> None:
    """What goes to other topics does not wait for the slow one."""
    bench.is_busy = True
    bench.arrive(1)
    began = time.monotonic()
    found: list[int] = []

    def is_sent() -> bool:
        found.extend(bench.taken() or ())
        return bool(found)

    wait_until(is_sent, description="it is sent")
    assert found == [1]
    assert time.monotonic() - began >= LONGEST_SECONDS
    assert bench.joining.wait_seconds(60) == 60


def test_what_has_waited_and_finds_no_room_wakes_nobody(bench: Bench) -> None:
    """The term asks for rows once there is room again: it would spin until then."""
    bench.is_busy = True
    bench.arrive(1)
    assert bench.taken() is None
    wait_until(lambda: bench.joining.wait_seconds(60) == 60, description="its moment is over")
    assert bench.taken() == [1]


def test_many_rows_do_not_wait(bench: Bench) -> None:
    """The next batch is made while the one before it is being stored, and is not made larger."""
    bench.is_busy = True
    bench.arrive(1, size=FEW_BYTES)
    bench.arrive(2, size=FEW_BYTES)
    assert bench.taken() == [1]
    assert bench.taken() == [2]


def test_together_they_are_many(bench: Bench) -> None:
    """What was few grows to what leaves at once."""
    bench.is_busy = True
    bench.arrive(1, size=FEW_BYTES // 2)
    assert bench.taken() is None
    bench.arrive(2, size=FEW_BYTES // 2)
    bench.arrive(3, size=FEW_BYTES)
    assert bench.taken() == [1, 2]
    assert bench.taken() == [3]


def test_nothing_is_joined_behind_the_end_of_a_term(bench: Bench) -> None:
    """The term ends with that batch."""
    bench.arrive(1)
    bench.arrive(2, ends_with="The collection was dropped")
    bench.arrive(3)
    batch = bench.joining.take(())
    assert batch is not None
    assert _numbers(batch) == [1, 2]
    assert batch.ends_with == "The collection was dropped"


def test_a_replay_is_handed_on_as_it_comes(bench: Bench) -> None:
    """Its batches are looked at one by one, whatever is under way."""
    bench.replay.is_over = False
    bench.is_busy = True
    bench.arrive(1)
    bench.arrive(2)
    assert bench.taken() == [1]
    assert bench.taken() == [2]
