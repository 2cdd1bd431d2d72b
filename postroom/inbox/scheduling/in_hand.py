"""In hand: the deliveries that are held, and which ones were done with lately."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.inbox.scheduling.delivery import Place
    from postroom.inbox.scheduling.held import Held

__all__ = ["InHand"]

# More than a broker sends again of what is done, since it was told so too late, or stands in one
# batch with what is not.
FEWEST_REMEMBERED = 20_000
STRETCH_ENTRIES = 1024


class InHand:
    """What a consumer holds, by its place in Pulsar; the dispatcher's own.

    Of what is done with the last 20,000 are remembered, and less than twice as many.
    """

    def __init__(self) -> None:
        self._held: dict[Place, Held] = {}
        self._done = DoneWith()
        self._done_before = DoneWith()

    def has(self, place: Place) -> bool:
        """Say whether the message there is held."""
        return place in self._held

    def had(self, place: Place) -> bool:
        """Say whether it was done with, not too many messages ago."""
        return self._done.has(place) or self._done_before.has(place)

    def take(self, held: Held) -> None:
        """Hold a delivery."""
        self._held[held.delivery.place] = held

    def let_go(self, held: Held) -> None:
        """Hold it no more, since it is done with."""
        del self._held[held.delivery.place]
        self._done.add(held.delivery.place)
        if self._done.places >= FEWEST_REMEMBERED:
            self._done, self._done_before = DoneWith(), self._done


class DoneWith:
    """Places, of which each is a bit among those of its batch, or of the entries around its own.

    One by one, with a topic's name and numbers for each, 20,000 of them take seven MiB.
    """

    def __init__(self) -> None:
        self.places = 0
        self._bits: dict[tuple[str, int, int, bool], int] = {}

    def has(self, place: Place) -> bool:
        """Say whether a place is one of them."""
        stretch, bit = _spot(place)
        return bool(self._bits.get(stretch, 0) >> bit & 1)

    def add(self, place: Place) -> None:
        """Add one that is not there."""
        stretch, bit = _spot(place)
        self._bits[stretch] = self._bits.get(stretch, 0) | 1 << bit
        self.places += 1


def _spot(place: Place) -> tuple[tuple[str, int, int, bool], int]:
    """Return the batch in which a place is, or the stretch of a ledger, and its number there."""
    topic, ledger, entry, index = place
    if index < 0:
        return (topic, ledger, entry // STRETCH_ENTRIES, False), entry % STRETCH_ENTRIES
    return (topic, ledger, entry, True), index
