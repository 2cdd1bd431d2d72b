"""Upkeep: what becomes of open lanes while a term lasts, and at its end."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from postroom import errors

if TYPE_CHECKING:
    from postroom.relay.saving.marks import Marks
    from postroom.relay.sending.audience import Audience
    from postroom.relay.sending.lanes import Lanes
    from postroom.relay.sending.opening import Opening
    from postroom.topics import Topic

__all__ = ["Upkeep"]

LOOK_AGAIN_SECONDS = 60.0


class Upkeep:
    """Looks after all lanes that are open; used by the term's thread alone."""

    def __init__(self, lanes: Lanes, *, opening: Opening, marks: Marks, audience: Audience) -> None:
        self._lanes = lanes
        self._opening = opening
        self._marks = marks
        self._audience = audience
        self._looked: dict[Topic, float] = {}

    def mark_shared_ends(self) -> None:
        """Have the checkpoint begin the tails of shared lanes at their topics' ends, as they are.

        To be called while nothing is in flight. Where others send much and we little, the next
        term would have to read all of theirs.
        """
        import pulsar

        for lane in self._lanes:
            # It saves reading, and is no reason to end a term.
            with contextlib.suppress(pulsar.PulsarException, errors.TermEnded):
                if lane.shared and (mark := self._opening.tails.end(lane.topic)) is not None:
                    self._marks.move({lane.topic: mark})

    def follow_audience(self) -> None:
        """Have each lane batch events of several keys, or not, as its readers are by now.

        Raises:
            TermEnded: what was sent before was not stored.

        """
        self._audience.look_again()
        for lane in self._lanes:
            lane.let_batch(keys=self._audience.takes_batches(lane.topic))

    def look_again(self) -> None:
        """Look at one lane's topic, if that was long ago: it may have been made partitioned.

        Raises:
            TermEnded: it was.

        """
        import pulsar

        now = time.monotonic()
        for topic in (lane.topic for lane in self._lanes):
            if now - self._looked.setdefault(topic, now) > LOOK_AGAIN_SECONDS:
                self._looked[topic] = now
                with contextlib.suppress(pulsar.PulsarException):
                    try:
                        self._opening.require_one_log(topic)
                    except errors.PartitionedTopic as error:
                        raise errors.TermEnded(f"{error}; a new term begins") from error
                return

    def require_sound(self) -> None:
        """Make sure that each lane that waits for the broker may still hope for an answer.

        Raises:
            TermEnded: one may not.

        """
        for lane in self._lanes:
            if lane.outlet.is_waiting:
                lane.outlet.require_sound()

    def abandon(self) -> None:
        """Let nothing more out of any lane, at once."""
        for lane in self._lanes:
            lane.outlet.abandon()

    def close(self) -> None:
        """Close all lanes; what is not stored by now fails, and the next term sends it."""
        for lane in self._lanes:
            lane.outlet.close()
        self._lanes.forget()
