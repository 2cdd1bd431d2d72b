"""In hand: the deliveries that are held, and which ones were done with lately."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.inbox.scheduling.delivery import Place
    from postroom.inbox.scheduling.held import Held

__all__ = ["InHand"]

# More than a broker sends again of what is done, since it was told so too late, or stands in one
# batch with what is not.
MOST_REMEMBERED = 20_000


class InHand:
    """What a consumer holds, by its place in Pulsar; the dispatcher's own."""

    def __init__(self) -> None:
        self._held: dict[Place, Held] = {}
        self._done: dict[Place, None] = {}

    def has(self, place: Place) -> bool:
        """Say whether the message there is held."""
        return place in self._held

    def had(self, place: Place) -> bool:
        """Say whether it was done with, not too many messages ago."""
        return place in self._done

    def take(self, held: Held) -> None:
        """Hold a delivery."""
        self._held[held.delivery.place] = held

    def let_go(self, held: Held) -> None:
        """Hold it no more, since it is done with."""
        del self._held[held.delivery.place]
        self._done[held.delivery.place] = None
        if len(self._done) > MOST_REMEMBERED:
            del self._done[next(iter(self._done))]
