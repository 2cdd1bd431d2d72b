"""Overtaking: rows that a topic lacks although it has later ones."""

from __future__ import annotations

import logging
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from postroom import errors
from postroom.store import letter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.relay.sending.intents import Intents
    from postroom.relay.sending.tail import Tail
    from postroom.store.letter import Letter
    from postroom.topics import Topic

__all__ = ["OutOfTurnError", "Overtaking"]

logger = logging.getLogger(__name__)


class OutOfTurnError(errors.Poison):
    """The topic has later events by now: the row is poison however it is mended."""


@dataclass(slots=True)
class _Met:
    """The rows that a topic has, by their numbers, and what they measure."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    last: int = 0
    # From each on the size of the largest one; none yet where there are new ones.
    largest: list[int] = field(default_factory=list)

    def add(self, row: int, size: int) -> None:
        self.sizes.append((row, size))
        self.last = max(self.last, row)
        self.largest = []

    def behind(self, row: int) -> tuple[int, int]:
        """Return how many stand behind a row, which some do, and the size of the largest."""
        if not self.largest:
            # Those of two topics that were waited for may go to one now.
            self.sizes.sort()
            self.largest = [*accumulate((size for _, size in reversed(self.sizes)), max)][::-1]
        place = bisect_right(self.sizes, row, key=lambda each: each[0])
        return len(self.sizes) - place, self.largest[place]

    def first(self) -> int:
        return self.sizes[0][0]


class Overtaking:
    """Knows behind which rows the events stand that topics have already; the term's thread alone.

    Rows of a replay, or those that were set aside for a topic: `row` is the number of the one that
    is looked at. `tails` is what was read of each topic, open or not, and `intents`
    what has left, and is about to.
    """

    def __init__(self, tails: Mapping[Topic, Tail], intents: Intents) -> None:
        self.row = 0
        self._tails = tails
        self.intents = intents
        self._met: dict[Topic, _Met] = {}
        # Topics to which rows are routed that were never sent there.
        self._rerouted: set[Topic] = set()

    def met(self, row_id: str, row: int) -> None:
        """Note which row an event is that is on a topic already."""
        for topic, tail in self._tails.items():
            size = tail.sizes.get(row_id)
            if size is not None:
                self._met.setdefault(topic, _Met()).add(row, size)

    def require_in_order(self, ready: Letter) -> None:
        """Make sure that a row's topic has nothing yet that stands behind it.

        It has where the broker refused the row in its turn, by a policy that was set while it was
        under way: that is noted in a scan, and behind lost history; in a replay all that the topic
        took behind the row is smaller then. Otherwise, as where a deploy has
        changed the routing, the row was never sent there: it is sent late, and that is told. So is
        one before the first that the topic has, where Pulsar may have deleted it. Where
        one row is sure to be late, those behind it are too: they have the same cause.

        Raises:
            Poison: the row was refused, and sent now it would come out of order.

        """
        self.require_not_refused(ready)
        topic = ready.topic
        met = self._met.get(topic)
        if met is None or met.last <= self.row:
            return
        later, largest = met.behind(self.row)
        size = _size(ready)
        may_be_deleted = self._tails[topic].first is not None and self.row < met.first()
        if size > largest and not may_be_deleted and topic not in self._rerouted:
            raise errors.Poison(
                f"The topic {topic} did not take the event, of {size} bytes, in its turn, and "
                f"has {later} later ones by now, all of them smaller: a policy was set while "
                "it was under way (maxMessageSize), unless a deploy has routed it there "
                "only since. Sent now it comes out of order"
            )
        self._rerouted.add(topic)
        logger.warning(
            "Row %s comes late: %s has %d events already that stand behind it",
            ready.id,
            topic,
            later,
            extra={"action": "late", "event_id": ready.id},
        )

    def require_not_refused(self, ready: Letter) -> None:
        """Make sure that a row is not noted as one that its topic has refused in its turn.

        Raises:
            OutOfTurnError: it is.

        """
        topic = ready.topic
        if self.intents.has_refused(topic, ready.id):
            raise OutOfTurnError(
                f"The topic {topic} did not take the event, of {_size(ready)} bytes, in its "
                "turn, and has later ones by now: a policy was set while it was under way "
                "(maxMessageSize). Sent now it comes out of order"
            )


def _size(ready: Letter) -> int:
    return letter.measured(ready.payload, ready.key, ready.headers)
