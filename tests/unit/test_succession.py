"""Whatever a broker does with a topic that changes hands, its messages are admitted in order."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from postroom.inbox.receiving import succession as successions
from postroom.inbox.receiving.succession import Succession

if TYPE_CHECKING:
    from postroom.inbox.scheduling.delivery import Place

TOPIC = "persistent://a/b/c"
ENTRIES_A_LEDGER = 7


def places_of(sizes: list[int]) -> list[list[Place]]:
    """Return the places of entries of so many messages each: 0 for one that is no batch."""
    return [
        [
            (TOPIC, number // ENTRIES_A_LEDGER, number % ENTRIES_A_LEDGER, index)
            for index in (range(size) if size else [-1])
        ]
        for number, size in enumerate(sizes)
    ]


class Broker:
    """A topic of real Pulsar that another consumer has in turns, and acknowledges at all times."""

    def __init__(self, entries: list[list[Place]]) -> None:
        self.entries = entries
        self.acknowledged: set[int] = set()
        self.admitted: list[Place] = []
        self._reads_at = 0
        self._on_the_way: deque[Place] = deque()
        self._is_ours = False
        self._is_to_go_back = False
        self._read_on_at = set[int]()
        # No wait between two looks after it.
        with mock.patch.object(successions, "FIRST_WAIT_SECONDS", 0.0):
            self._succession = Succession(self.go_back)

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
            if number not in self.acknowledged:
                self._on_the_way.extend(self.entries[number])

    def receive(self, count: int) -> None:
        """Have the consumer receive some messages, and require that none is missing before one."""
        for _ in range(min(count, len(self._on_the_way))):
            place = self._on_the_way.popleft()
            if self._succession.admits(place) and not self.has(place):
                assert self.missing_before(place) == []
                self.admitted.append(place)

    def missing_before(self, place: Place | None) -> list[Place]:
        """Return the messages before this one, or all, that nobody has handled."""
        wanted = [
            each
            for number, entry in enumerate(self.entries)
            if number not in self.acknowledged
            for each in entry
        ]
        return [each for each in wanted if place is None or each < place if not self.has(each)]

    def has(self, place: Place) -> bool:
        """Say whether a message was admitted."""
        return place in self.admitted

    def acknowledge(self, number: int) -> None:
        """Have the other consumer acknowledge an entry."""
        self.acknowledged.add(number)

    def tend(self, _: int) -> None:
        """Look after the consumer."""
        self._succession.tend()


acts = st.tuples(
    st.sampled_from(["read", "receive", "acknowledge", "take", "take_away", "end_moment", "tend"]),
    st.integers(0, 25),
)


@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=25), acts=st.lists(acts, max_size=80))
@example(sizes=[0] * 9, acts=[("take", 6), ("read", 2), ("receive", 2), ("end_moment", 0)])
def test_none_is_admitted_before_an_earlier_one(
    sizes: list[int], acts: list[tuple[str, int]]
) -> None:
    """However often it changes hands, messages are admitted first in order, and none is left."""
    broker = Broker(places_of(sizes))
    for act, number in acts:
        if act in ("take_away", "end_moment"):
            getattr(broker, act)()
        else:
            getattr(broker, act)(number)
    broker.take(1000)
    broker.end_moment()
    for _ in range(2 * len(sizes) + 4):
        broker.tend(0)
        broker.read(len(sizes))
        broker.receive(1000)
    assert broker.admitted == sorted(set(broker.admitted))
    assert broker.missing_before(None) == []


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
