"""How long few rows let the next ones come."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import pytest

from postroom.relay.reading.batch import Batch
from postroom.relay.reading.gathering import Gathering
from postroom.relay.reading.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE, OTHER = threading.Event(), threading.Event()
LONG_SECONDS = 600.0
SOON_SECONDS = 20.0


@pytest.fixture
def gathering() -> Gathering:
    """Return one that is left only when rows are stored, where others gather."""
    return Gathering(
        pace_seconds=0.001, longest_seconds=LONG_SECONDS, recent_seconds=10 * LONG_SECONDS
    )


def test_one_stream_is_alone_however_often_it_gathers() -> None:
    """Then the next rows are to be ready when those before them are stored."""
    gathering = Gathering(recent_seconds=10.0)
    assert not any(gathering.has_others(ONE, now) for now in (100.0, 101.0, 102.0, 160.0))


def test_streams_that_gather_in_turn_have_others() -> None:
    """Each but the very first time, which it cannot know."""
    gathering = Gathering(recent_seconds=10.0)
    asks = [gathering.has_others(each, 100.0 + n) for n, each in enumerate((ONE, OTHER) * 3)]
    assert asks == [False, True, True, True, True, True]


def test_a_stream_that_is_idle_is_forgotten() -> None:
    """Of a divided outbox the one that has events is as quick as an outbox that is not divided."""
    gathering = Gathering(recent_seconds=10.0)
    assert not gathering.has_others(OTHER, 100.0)
    assert gathering.has_others(ONE, 110.0)
    assert not gathering.has_others(ONE, 110.1)
    assert gathering.has_others(OTHER, 111.0)


def test_who_is_alone_does_not_wait_until_rows_are_stored(gathering: Gathering) -> None:
    """It would wait for ever here."""
    gathering.wait(threading.Event())


def test_what_does_not_send_waits_for_nobody_and_holds_up_nobody(gathering: Gathering) -> None:
    """As the stream that is read beside a scan."""
    gathering.wait()
    gathering.wait(threading.Event())
    gathering.wait()


def test_nobody_waits_for_longer_than_the_bound() -> None:
    """However long the broker takes."""
    gathering = Gathering(
        pace_seconds=0.001, longest_seconds=0.002, recent_seconds=10 * LONG_SECONDS
    )
    for _ in range(2):
        gathering.wait(threading.Event())


class _Stream:
    """Batches as a change stream with few rows gives them, and the reader that reads them."""

    def __init__(self, gathering: Gathering) -> None:
        self.told: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.gathered: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.reader = Reader(tell=self.told.put, gathering=gathering)
        self.reader.start(self._batches())

    def _batches(self) -> Iterator[Batch]:
        while True:
            yield Batch(slices=[], point=None, size=1)
            self.reader.gather()
            self.gathered.put(1)

    def arrive(self) -> None:
        """Keep the next batch that comes, as a term does."""
        batch = self.told.get(timeout=SOON_SECONDS)
        assert isinstance(batch, Batch)
        self.reader.arrived(batch)

    def send(self) -> None:
        """Take it from the reader."""
        self.reader.take()
        self.reader.make_room()


def test_a_reader_beside_others_reads_on_once_its_term_has_nothing_under_way(
    gathering: Gathering,
) -> None:
    """What has come and is not taken is under way, too."""
    gathering.has_others(OTHER, LONG_SECONDS * 10**6)
    stream = _Stream(gathering)
    stream.arrive()
    stream.reader.all_is_stored()
    with pytest.raises(queue.Empty):
        stream.gathered.get(timeout=0.1)
    stream.send()
    stream.reader.all_is_stored()
    stream.gathered.get(timeout=SOON_SECONDS)
    stream.arrive()
    stream.reader.stop()
    stream.send()
    stream.reader.all_is_stored()
