"""Succession: which messages of a Failover topic are handed on, so that none overtakes another.

Pulsar gives a topic to another consumer without a word to Python's client, and its broker
(PersistentDispatcherSingleActiveConsumer, as of 4.2) goes back to what is unacknowledged a moment
later (activeConsumerFailoverDelayTimeMillis). Where a write to the consumer before was under way,
it reads on for the new one in that moment: the newest messages come first, the ones before them
later, and not before something new is sent where the topic had come to its end. So nothing is taken
for the next message that is not seen to be.

A message in chunks that is half received when the broker goes back is dropped by the client, which
has the first half already (ConsumerImpl::processMessageChunk, as of Python's 3.13): it is missing
from what comes next, and comes when the broker has gone back once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.doubling import Respite

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.inbox.scheduling.delivery import Place

__all__ = ["Succession"]

FIRST_WAIT_SECONDS = 1.0
# Going back begins a message in chunks again that was on its way: each wait gives it more time.
LONGEST_WAIT_SECONDS = 60.0
# Of a topic from which many messages are gone, as behind a worker that handled them side by side.
MOST_STEPS = 1000


class Succession:
    """Admits the messages of one consumer of Pulsar's in their order, without a gap.

    A message is admitted where it stands right behind the one that was admitted last, or where the
    broker has come from that one to it twice in a row, having gone back once in between to what is
    unacknowledged, as `go_back` asks it to. Any other is left out, for the broker to deliver again:
    the first one of all, and one behind a gap, which may be messages that were acknowledged, or
    markers, or ones still to come. What comes again is admitted again: it is held already, or done
    and its acknowledgement lost, as by a broker that was killed.

    admits() belongs to the thread that receives, tend() and is_waiting to the one that looks after
    the consumer. Each writes what is its own and reads the other's: tend() what was admitted and
    left out, admits() how often tend() has asked. `go_back` is safe from both.
    """

    def __init__(self, go_back: Callable[[], None]) -> None:
        self._go_back = go_back
        self._last: Place | None = None
        # While messages are left out: the one that came last, and whether all that came since the
        # broker went back had been admitted before.
        self._before: Place | None = None
        self._is_fresh = False
        # What came behind what, since the broker was asked to go back last but one.
        self._steps: dict[Place | None, Place] = {}
        self._times_left_out = 0
        # tend()'s own: how often it has asked; and of these how many admits() knew when it asked.
        self._asked_beside = 0
        self._known_beside = 0
        self._looked_at: tuple[Place | None, int] = (None, 0)
        self._respite = Respite(first=FIRST_WAIT_SECONDS, longest=LONGEST_WAIT_SECONDS)
        self._respite.begin()

    @property
    def is_waiting(self) -> bool:
        """Whether a message was left out, and nothing admitted since."""
        return self._before is not None

    def admits(self, place: Place) -> bool:
        """Say whether the message there is the next one, or an earlier one; else it is left out."""
        last = self._last
        if last is None or not _follows(last, place):
            if last is not None and place <= last:
                self._note_again(place)
                return True
            begins = self._begins(place)
            if not begins or not self._is_sure(place):
                self._leave_out(place, begins=begins)
                return False
        self._last, self._before = place, None
        return True

    def _begins(self, place: Place) -> bool:
        """Say whether this is the first one that is new, at all or since the broker went back."""
        return self._before is None or self._is_fresh or place <= self._before

    def _note_again(self, place: Place) -> None:
        if self._before is not None:
            self._before, self._is_fresh = place, True
        else:  # The broker went back unasked, so that what came behind may not come now.
            self._steps.clear()

    def _is_sure(self, place: Place) -> bool:
        return self._asked_beside == self._known_beside and self._steps.get(self._last) == place

    def _leave_out(self, place: Place, *, begins: bool) -> None:
        before, self._before, self._is_fresh = self._before, place, False
        if begins:
            self._times_left_out += before is None
            self._begin_again(place)
        elif before is not None and not _follows(before, place) and len(self._steps) < MOST_STEPS:
            self._steps[before] = place

    def _begin_again(self, place: Place) -> None:
        # Where tend() has asked as well, this may be of before that, and the broker goes back twice
        # in a row: what it has sent in between says nothing.
        asked = self._asked_beside
        self._steps = {self._last: place} if asked == self._known_beside else {}
        self._known_beside = asked
        self._go_back()

    def tend(self) -> None:
        """Ask the broker to go back where nothing has been admitted for a while.

        It takes no notice while another consumer has the topic, and for a moment after that.
        """
        seen = self._last, self._times_left_out
        if seen != self._looked_at:
            self._looked_at = seen
            self._respite.end()
            self._respite.begin()
        elif not self._respite.is_on:
            self._respite.begin()
            self._asked_beside += 1
            self._go_back()


def _follows(last: Place, place: Place) -> bool:
    _, ledger, entry, index = last
    _, next_ledger, next_entry, next_index = place
    if ledger != next_ledger:
        return False
    if entry == next_entry:
        return index + 1 == next_index > 0
    return entry + 1 == next_entry and next_index <= 0
