"""The lanes of a term by topic: which are open, which were found not to open, and why."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from postroom import errors
from postroom.relay.tail import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from postroom.relay.lane import Lane
    from postroom.relay.opening import Opening
    from postroom.relay.saver import Saver
    from postroom.routing import Routing
    from postroom.topics import Topic

__all__ = ["Lanes"]

logger = logging.getLogger(__name__)


class Lanes:
    """Used by the term's thread alone.

    `known` holds the ids that were found in any tail, until the replay is behind all of them.
    """

    def __init__(self, opening: Opening, *, routing: Routing, saver: Saver) -> None:
        self.known: set[str] = set()
        self._opening = opening
        self._routing = routing
        self._saver = saver
        self._open: dict[Topic, Lane] = {}
        self._unopened: dict[Topic, str] = {}
        self._position = 0
        self._published_since: datetime | None = None

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._open.values())

    def open(
        self, topics: Iterable[Topic], *, position: int, published_since: datetime | None
    ) -> None:
        """Fence all known topics before the first send, and read their tails.

        So an older holder is out of all of them; the others are fenced when the first event goes
        there. With `published_since`, the tail is all that a topic received since.
        """
        self._position = position
        self._published_since = published_since
        for topic in topics:
            self._open_declared(topic)

    def _open_declared(self, topic: Topic) -> None:
        import pulsar

        try:
            self._open_lane(topic)
        except pulsar.TopicNotFound:
            # Nothing may ever go there again; if something does, the lane is opened then.
            logger.warning("The topic %s is gone; it is opened when an event goes there", topic)
        except errors.PartitionedTopic as error:
            if topic in self._routing.topics:
                raise
            logger.warning("%s; it is no longer read either", error)

    def of(self, topic: Topic) -> Lane:
        """Return the lane of a topic, opened if it has to be.

        Raises:
            Poison: the topic can never be opened, and nothing was ever sent there.

        """
        import pulsar

        lane = self._open.get(topic)
        if lane is not None:
            return lane
        if topic in self._unopened:
            raise errors.Poison(self._unopened[topic])
        try:
            return self._open_lane(topic)
        except (errors.PartitionedTopic, pulsar.PulsarException) as error:
            reason = self._why_it_never_opens(topic, error)
            if reason is None:
                raise
            self._unopened[topic] = reason
            raise errors.Poison(reason) from error

    def _why_it_never_opens(self, topic: Topic, error: Exception) -> str | None:
        import pulsar

        if self._saver.marks.is_declared(topic):
            return None
        if isinstance(error, errors.PartitionedTopic):
            return None if topic in self._routing.topics else str(error)
        # Rights are granted later, and without the default topic there is nothing to go on with.
        waits = (pulsar.AuthorizationError, pulsar.AuthenticationError)
        if isinstance(error, waits) or topic == self._routing.default:
            return None
        if errors.is_transient(error) and not isinstance(error, pulsar.TopicNotFound):
            return None
        return f"The topic {topic} cannot be opened ({type(error).__name__})"

    def _open_lane(self, topic: Topic) -> Lane:
        declared = self._saver.marks.is_declared(topic)
        span = Span(
            mark=self._saver.marks.of(topic),
            position=self._position,
            published_since=self._published_since,
        )
        opened = self._opening.open(
            topic, span if declared or self._published_since is not None else None
        )
        self._open[topic] = opened.lane
        if not declared:
            self._saver.declare(topic, opened.mark)
        self._saver.tenure.renew()
        self.known |= opened.tail.ids
        if opened.tail.ids:
            logger.info(
                "%d events after the checkpoint are on %s already and are left out",
                len(opened.tail.ids),
                topic,
                extra={"action": "tail"},
            )
        return opened.lane

    def scan_is_over(self) -> None:
        """Read the tail of a lane from its mark on, from now on; what is in the tails was met.

        The stream goes on from a time after they were read.
        """
        self._published_since = None
        self.known.clear()

    def forget_tails(self, position: int) -> None:
        """Let go of the tails' ids where the replay is behind them at `position`.

        Not one by one as they are met: a row that was set aside, mended and put back stands in the
        change stream twice, and on its topic once.
        """
        if all(position >= lane.floor for lane in self):
            self.known.clear()

    def mark_shared_ends(self) -> None:
        """Have the checkpoint begin the tails of shared lanes at their topics' ends, as they are.

        To be called while nothing is in flight. Where others send much and we little, the next
        term would have to read all of theirs.
        """
        import pulsar

        for lane in self:
            # It saves reading, and is no reason to end a term.
            with contextlib.suppress(pulsar.PulsarException, errors.TermEnded):
                if lane.shared and (mark := self._opening.tails.end(lane.topic)) is not None:
                    self._saver.marks.move({lane.topic: mark})

    def require_sound(self) -> None:
        """Make sure that each lane that waits for the broker may still hope for an answer.

        Raises:
            TermEnded: one may not.

        """
        for lane in self:
            if lane.outlet.is_waiting:
                lane.outlet.require_sound()

    def abandon(self) -> None:
        """Let nothing more out of any lane, at once."""
        for lane in self:
            lane.outlet.abandon()

    def close(self) -> None:
        """Close all lanes; what is not stored by now fails, and the next term sends it."""
        for lane in self:
            lane.outlet.close()
