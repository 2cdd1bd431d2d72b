"""Arrivals: which of the rows that wait for a topic it has already, and what that tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom.events import id_text
from postroom.relay.sending.overtaking import Overtaking

if TYPE_CHECKING:
    from postroom.relay.sending.intents import Intents
    from postroom.relay.sending.lanes import Lanes
    from postroom.store.letter import Letter
    from postroom.store.quarantine import Entry, Quarantine
    from postroom.topics import Topic

__all__ = ["Arrivals"]


class Arrivals:
    """Looks through what waits for a topic before any of it is sent; used by the term's thread.

    Rows are set aside for a topic that cannot be read as well, and a topic may refuse one of those
    that return to it, and take the ones behind it. So it may have any of them. Those are let go of
    before others are sent, with which the topic's mark moves past them. And one that it lacks,
    while it has some that were set aside behind it, was refused in its turn, as in a replay. In a
    scan the row before may as well be committed only later: of what was set aside there only the
    intents tell.
    """

    def __init__(self, *, lanes: Lanes, quarantine: Quarantine, intents: Intents) -> None:
        self._lanes = lanes
        self._quarantine = quarantine
        self._overtaking = Overtaking(lanes.tails, intents)
        self._looked: set[Topic] = set()

    def found(self, topic: Topic) -> list[Any]:
        """Return the rows that wait for a topic and that are on one; the first time, none later.

        To be called once the topic to which they go is open, so that its tail is known.
        """
        arrived = self._lanes.arrived
        if topic in self._looked or not arrived:
            return []
        self._looked.add(topic)
        found: list[Any] = []
        for row_id, position in self._quarantine.awaiting_ids(topic):
            if (text := id_text(row_id)) in arrived:
                found.append(row_id)
                if position is not None:
                    self._overtaking.met(text, position)
        return found

    def require_in_order(self, ready: Letter, entry: Entry) -> None:
        """Make sure that a topic has nothing of what was set aside behind a row.

        Raises:
            Poison: the row was refused, and sent now it would come out of order.

        """
        self._overtaking.require_not_refused(ready)
        if entry.is_in_order and entry.position is not None:
            self._overtaking.row = entry.position
            self._overtaking.require_in_order(ready)
