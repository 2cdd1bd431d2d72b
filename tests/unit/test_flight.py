"""What is in flight is bounded, whatever it is."""

from __future__ import annotations

from postroom.relay.saving.chunk import Chunk
from postroom.relay.sending.flight import IN_FLIGHT_EVENTS, Flight
from postroom.store.quarantine import Quarantined
from postroom.topics import Topic


def test_rows_that_were_set_aside_take_room_too() -> None:
    """Behind a topic that is slow, those of one that is shut are not read without end."""
    flight = Flight()
    slow = Topic("persistent://a/b/slow")
    flight.add(Chunk(point=None, sent=1, awaiting={slow}))
    aside = Quarantined(row_id=1, position=1, reason="shut")
    while flight.has_room:
        flight.add(Chunk(point=None, poison=[aside] * 1000))
        assert flight.events <= IN_FLIGHT_EVENTS + 1000
    first = next(iter(flight._chunks))
    first.awaiting.discard(slow)
    assert len(list(flight.landed())) == IN_FLIGHT_EVENTS // 1000 + 1
    assert flight.events == 0
    assert flight.is_empty


def test_a_batch_is_under_way_until_its_own_topic_has_stored_it() -> None:
    """Whatever else its chunk, or one before it, waits for."""
    flight = Flight()
    slow, quick = Topic("persistent://a/b/slow"), Topic("persistent://a/b/quick")
    flight.add(Chunk(point=None, sent=1, awaiting={slow}))
    both = Chunk(point=None, sent=2, awaiting={slow, quick}, batched={quick})
    flight.add(both)
    assert flight.batches == 1
    flight.stored(both, slow)
    assert flight.batches == 1
    flight.stored(both, quick)
    assert flight.batches == 0
    assert not flight.is_empty
    assert list(flight.landed()) == []
