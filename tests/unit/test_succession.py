"""Whatever a broker does with a topic that changes hands, its messages are admitted in order."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from postroom.inbox.receiving.succession import LONGEST_WAIT_SECONDS, Succession

if TYPE_CHECKING:
    from postroom.inbox.scheduling.delivery import Place

TOPIC = "persistent://a/b/c"
ENTRIES_A_LEDGER = 7


def entry(number: int, *indices: int) -> list[Place]:
    """Return the places of an entry's messages."""
    where = number // ENTRIES_A_LEDGER, number % ENTRIES_A_LEDGER
    return [(TOPIC, *where, index) for index in indices]


def places_of(sizes: list[int]) -> list[list[Place]]:
    """Return the places of entries of so many messages each: 0 for one that is no batch."""
    return [entry(n, *(range(size) if size else [-1])) for n, size in enumerate(sizes)]


class Chunk(NamedTuple):
    """An entry as it is sent: what it holds, or which chunk it is of how many of a message."""

    number: int
    places: list[Place]
    at: int
    chunks: int


def sent(sizes: list[int]) -> list[Chunk]:
    """Return the entries of so many messages each, where below zero: of so many chunks."""
    found: list[Chunk] = []
    for size in sizes:
        count, first = max(1, -size), len(found)
        whole = entry(first + count - 1, *(range(size) if size > 0 else [-1]))
        found += [Chunk(first, whole, index, count) for index in range(count)]
    return found


class Client:
    """Pulsar's client, which puts chunks together, and drops those of a half that come again."""

    def __init__(self) -> None:
        self._next: dict[int, int] = {}

    def put_together(self, chunk: Chunk) -> list[Place]:
        """Return the messages that are whole with it."""
        if self._next.get(chunk.number, 0) != chunk.at:
            self._next.pop(chunk.number, None)
            return []
        if chunk.at + 1 < chunk.chunks:
            self._next[chunk.number] = chunk.at + 1
            return []
        self._next.pop(chunk.number, None)
        return chunk.places


class Broker:
    """A topic of real Pulsar that another consumer has in turns, and acknowledges at all times."""

    def __init__(self, entries: list[Chunk]) -> None:
        self.entries = entries
        self.acknowledged: set[int] = set()
        self.admitted: list[Place] = []
        self._reads_at = 0
        self._on_the_way: deque[Chunk] = deque()
        self._is_ours = False
        self._is_to_go_back = False
        self._read_on_at = set[int]()
        self._now = 0.0
        self.open()

    def open(self) -> None:
        """Open a consumer, in the place of the one before."""
        self._on_the_way.clear()
        self._client, self._reads_at = Client(), 0
        with self._clock():
            self._succession = Succession(self.go_back)

    def _clock(self) -> mock._patch[mock.Mock]:
        return mock.patch("time.monotonic", return_value=self._now)

    def take(self, reads_on_at: int) -> None:
        """Give the consumer the topic; for a moment the broker reads on where it happens to be."""
        if not self._is_ours and reads_on_at not in self._read_on_at:
            self._is_ours = self._is_to_go_back = True
            self._reads_at = reads_on_at
            self._read_on_at.add(reads_on_at)

    def take_away(self) -> None:
        """Give the topic to the other consumer."""
        self._is_ours = False

    def end_moment(self) -> None:
        """Go back, a moment after the topic was given to the consumer."""
        if self._is_to_go_back:
            self._is_to_go_back = False
            self._reads_at = 0

    def go_back(self) -> None:
        """Read again from what is unacknowledged on, if that is the consumer's to ask."""
        if self._is_ours and not self._is_to_go_back:
            self._reads_at = 0

    def read(self, count: int) -> None:
        """Send the consumer some entries."""
        end = min(self._reads_at + count, len(self.entries)) if self._is_ours else 0
        for number in range(self._reads_at, end):
            self._reads_at = number + 1
            if self.entries[number].number not in self.acknowledged:
                self._on_the_way.append(self.entries[number])

    def receive(self, count: int) -> None:
        """Have the consumer receive some entries, and require that none is missing before one."""
        for _ in range(min(count, len(self._on_the_way))):
            for place in self._client.put_together(self._on_the_way.popleft()):
                if self._succession.admits(place) and not self.has(place):
                    assert self.missing_before(place) == []
                    self.admitted.append(place)

    def missing_before(self, place: Place | None) -> list[Place]:
        """Return the messages before this one, or all, that nobody has handled."""
        wanted = [
            each
            for chunk in self.entries
            if chunk.number not in self.acknowledged and chunk.at + 1 == chunk.chunks
            for each in chunk.places
        ]
        return [each for each in wanted if place is None or each < place if not self.has(each)]

    def has(self, place: Place) -> bool:
        """Say whether a message was admitted."""
        return place in self.admitted

    def acknowledge(self, number: int) -> None:
        """Have the other consumer acknowledge an entry, with all chunks of its message."""
        if number < len(self.entries):
            self.acknowledged.add(self.entries[number].number)

    def tend(self, seconds: int) -> None:
        """Look after the consumer, so much later."""
        self._now += seconds
        with self._clock():
            self._succession.tend()


acts = st.tuples(
    st.sampled_from(
        ["read", "receive", "acknowledge", "take", "take_away", "end_moment", "tend", "open"]
    ),
    st.integers(0, 25),
)
BEGUN = [("take", 0), ("end_moment", 0), ("read", 1), ("receive", 1)]
# The broker is asked to go back when half of a message in chunks has come.
CUT = [("read", 2), ("receive", 2), ("tend", 0), ("tend", 99), ("read", 4), ("receive", 4)]


@given(
    sizes=st.lists(st.integers(-3, 4), min_size=1, max_size=25), acts=st.lists(acts, max_size=80)
)
@example(sizes=[0] * 9, acts=[("take", 6), ("read", 2), ("receive", 2), ("end_moment", 0)])
@example(sizes=[0, -2, 0, 0], acts=[*BEGUN, *CUT, *CUT, *CUT])
def test_none_is_admitted_before_an_earlier_one(
    sizes: list[int], acts: list[tuple[str, int]]
) -> None:
    """However often it changes hands, messages are admitted first in order, and none is left."""
    broker = Broker(sent(sizes))
    for act, number in acts:
        if act in ("take_away", "end_moment", "open"):
            getattr(broker, act)()
        else:
            getattr(broker, act)(number)
    broker.take(1000)
    broker.end_moment()
    for _ in range(16 * len(sizes) + 600):
        if not broker.missing_before(None):
            break
        broker.tend(1)
        broker.read(len(broker.entries))
        broker.receive(1000)
    assert broker.admitted == sorted(set(broker.admitted))
    assert broker.missing_before(None) == []


def test_a_message_in_chunks_that_takes_long_is_not_begun_again_for_ever() -> None:
    """Where nothing is admitted the broker is given twice the time each time, up to a minute."""
    asked: list[float] = []
    with mock.patch("time.monotonic", return_value=0.0) as clock:
        found = Succession(lambda: asked.append(clock.return_value))
        for clock.return_value in range(2000):
            found.tend()
    waits = [after - before for before, after in pairwise(asked)]
    assert waits[:5] == [2, 4, 8, 16, 32]
    assert waits[-1] == LONGEST_WAIT_SECONDS


def test_what_comes_right_behind_is_admitted_without_a_word() -> None:
    """The broker is asked to go back for the first message, and not for those that follow it."""
    asked: list[int] = []
    found = Succession(lambda: asked.append(1))
    (first,), *rest = places_of([0, 0, 3, 1, 0])
    assert [found.admits(first), found.admits(first)] == [False, True]
    assert found.admits(first)  # as one whose acknowledgement was lost
    assert all(found.admits(place) for entry in rest for place in entry)
    assert asked == [1]


def test_gaps_that_stay_are_gone_over_together() -> None:
    """What was acknowledged out of order by the worker before costs one more delivery, not each."""
    asked: list[int] = []
    found = Succession(lambda: asked.append(1))
    left = [entry[0] for n, entry in enumerate(places_of([0] * 30)) if n % 3]
    assert not any(found.admits(place) for place in left)
    assert all(found.admits(place) for place in left)
    assert asked == [1]
