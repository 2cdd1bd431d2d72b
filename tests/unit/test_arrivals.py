"""Arrivals: what a topic has of the rows that wait for it tells of those that it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from postroom import errors
from postroom.relay.sending.arrivals import Arrivals
from postroom.relay.sending.intents import Intents
from postroom.store.quarantine import Entry
from tests.unit.test_overtaking import PLAIN, tail_of, written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from postroom.relay.sending.tail import Tail
    from postroom.store.letter import Letter
    from postroom.topics import Topic


class Setting:
    """Rows that wait for a topic, by their numbers, and what it has of them."""

    def __init__(self, there: Letter, *, is_in_order: bool, waiting: Sequence[Letter]) -> None:
        self.tails: dict[Topic, Tail] = {there.topic: tail_of(there)}
        self.arrived = {there.id}
        self.entries = {
            letter.id: Entry(
                row_id=letter.id,
                position=number,
                reason="shut",
                quarantined_at=None,
                topic=letter.topic,
                is_in_order=is_in_order,
            )
            for number, letter in enumerate(waiting, 5)
        }

    def awaiting_ids(self, _: Topic) -> Iterator[tuple[str, int | None]]:
        """Yield what quarantine does."""
        for entry in self.entries.values():
            yield entry.row_id, entry.position if entry.is_in_order else None


@pytest.mark.parametrize("is_in_order", [False, True], ids=["scan", "stream"])
def test_only_the_order_of_the_stream_tells_what_was_refused(*, is_in_order: bool) -> None:
    """A scan goes by ids: the row before the one that is there may be committed later."""
    lacking, there = written(1, PLAIN, text="x" * 100), written(2, PLAIN)
    setting: Any = Setting(there, is_in_order=is_in_order, waiting=[lacking, there])
    arrivals = Arrivals(lanes=setting, quarantine=setting, intents=Intents())
    assert arrivals.found(there.topic) == [there.id]
    if is_in_order:
        with pytest.raises(errors.Poison, match="in its turn"):
            arrivals.require_in_order(lacking, setting.entries[lacking.id])
    else:
        arrivals.require_in_order(lacking, setting.entries[lacking.id])
