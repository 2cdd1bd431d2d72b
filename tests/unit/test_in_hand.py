"""What was done with lately is told from all else, and takes next to nothing."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from postroom.inbox.scheduling import in_hand
from postroom.inbox.scheduling.held import Held
from postroom.inbox.scheduling.in_hand import InHand

if TYPE_CHECKING:
    import pytest

    from postroom.inbox.scheduling.delivery import Place

TOPIC = "persistent://a/b/c"
FEWEST = in_hand.FEWEST_REMEMBERED
# Around where one stretch of entries ends and the next begins, as a message of its own or in a
# batch, of topics whose ledgers' numbers may be the same.
PLACES = st.tuples(
    st.sampled_from([TOPIC, f"{TOPIC}-partition-0"]),
    st.integers(0, 2),
    st.sampled_from([0, 1, 1023, 1024, 1025, 2048]),
    st.sampled_from([-1, 0, 1, 63, 64, 4000]),
)


def done_with(hand: InHand, place: Place) -> None:
    """Take what is there in hand, and let it go."""
    delivery: Any = SimpleNamespace(place=place)
    held = Held(delivery)
    hand.take(held)
    assert hand.has(place)
    hand.let_go(held)
    assert not hand.has(place)


def entry(number: int) -> Place:
    """Return the place of a message that is in no batch, as the client would give it."""
    return (TOPIC, 10**9, number, -1)


@given(st.lists(PLACES, unique=True), PLACES)
def test_each_place_is_told_from_every_other(places: list[Place], another: Place) -> None:
    """Of whatever topic, ledger, entry and batch."""
    hand = InHand()
    for place in places:
        assert not hand.had(place)
        done_with(hand, place)
    assert all(map(hand.had, places))
    assert hand.had(another) == (another in places)


def test_the_last_ones_are_remembered_and_older_ones_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At any moment the last so many, and less than twice as many."""
    monkeypatch.setattr(in_hand, "FEWEST_REMEMBERED", 10)
    hand = InHand()
    for number in range(100):
        done_with(hand, entry(number))
        assert all(hand.had(entry(each)) for each in range(max(0, number - 9), number + 1))
        assert not any(hand.had(entry(each)) for each in range(number - 19))


def test_what_is_remembered_takes_little() -> None:
    """One by one the places of so many take seven MiB."""
    hand = InHand()
    tracemalloc.start()
    try:
        for number in range(2 * FEWEST):
            done_with(hand, entry(number))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 100_000
