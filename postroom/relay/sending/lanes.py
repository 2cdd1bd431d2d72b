"""The lanes of a term by topic: which are open, and which cannot be opened now."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import TYPE_CHECKING

from postroom import errors
from postroom.refusals import is_away
from postroom.relay.sending.known_ids import KnownIds
from postroom.relay.sending.tail import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from postroom.relay.saving.saver import Saver
    from postroom.relay.sending.lane import Lane
    from postroom.relay.sending.opening import Opening
    from postroom.relay.sending.tail import Tail
    from postroom.relay.sending.waiting import Waiting
    from postroom.routing import Routing
    from postroom.store.scans import Scan
    from postroom.topics import Topic

__all__ = ["Lanes"]

logger = logging.getLogger(__name__)

# A function may name any number of topics.
MOST_SHUT = 1000


class Lanes:
    """Used by the term's thread alone.

    `known` holds the ids that were found in any tail, until the replay is over; `arrived` those
    found while rows were set aside for a topic. `tails` has the rest of each tail, also of topics
    that could be read and not opened. A topic that cannot be opened stops nothing but itself, where
    any other one can be.

    One that a scan finds and that cannot even be read may have any of the scan's rows. They are set
    aside all the same: from then on the checkpoint has no mark for it, so that it is read from its
    beginning when it is opened, and what it has is not sent again. So is one that the checkpoint
    never named, if rows wait for it and a relay has sent something there ever.
    """

    def __init__(
        self, opening: Opening, *, routing: Routing, saver: Saver, waiting: Waiting
    ) -> None:
        self.known = KnownIds()
        self.arrived = KnownIds()
        self.tails: dict[Topic, Tail] = {}
        self._opening = opening
        self._routing = routing
        self._saver = saver
        self._waiting = waiting
        self._open: dict[Topic, Lane] = {}
        # How far back a topic is looked at, but for its mark.
        self._back = Span(mark=None, position=0)
        # Whether a topic was looked at in the middle of a scan, and has some of its rows.
        self.has_late_tails = False

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._open.values())

    def of(self, topic: Topic) -> Lane:
        """Return the lane of a topic, opened if it has to be.

        Raises:
            TopicNotOpen: it cannot be opened now, or what was set aside for it goes first.
            Poison: that is no topic's name, or too many topics are waited for already.
            TermEnded: no topic can be opened.

        """
        lane = self._open.get(topic)
        reason = self._waiting.reason(topic) if self._waiting else None
        if reason is not None:
            raise errors.TopicNotOpen(reason, topic=topic)
        return lane or self._opened(topic)

    # --- at the beginning of a term ------------------------------------------------------------

    def open(self, topics: Iterable[Topic], *, position: int, scan: Scan | None) -> None:
        """Fence all declared topics before the first send, and read their tails.

        So an older holder is out of all of them; the others are fenced when the first event goes
        there. With a scan, the tail is all that a topic received since the scan says.

        Raises:
            TermEnded: no topic can be opened, the connection was lost, or the relay was stopped.
            Poison: a name is no topic's, or so many are shut that no more are waited for.
            pymongo.errors.PyMongoError: a lane could not be declared in the checkpoint.

        """
        since = scan.published_since if scan else None
        self._back = Span(
            mark=None,
            position=position,
            published_since=since,
            is_for_scan=scan is not None,
            is_unsure=scan is not None and scan.first,
        )
        # Where the broker is silent over some topics, the others are opened first.
        for topic in sorted(topics, key=self._opening.silence):
            try:
                self._opened(topic)
            except (errors.TopicNotOpen, errors.Poison) as shut:
                # Poison are at most the rows that go there: the term has others.
                is_log = not isinstance(shut.__cause__, errors.PartitionedTopic)
                is_read = is_log and self._read_unopened(topic, shut.__cause__)
                if not is_read and since is not None:
                    self._saver.declare(topic, None)

    def _read_unopened(self, topic: Topic, cause: BaseException | None) -> bool:
        """Read the tail of a topic that cannot be written: its events may go elsewhere now.

        Says whether that was possible.
        """
        import pulsar

        is_terminated = isinstance(cause, pulsar.TopicTerminated)
        try:
            tail = self._opening.read_unopened(
                topic, self._span(topic), is_terminated=is_terminated
            )
        except (errors.PartitionedTopic, pulsar.PulsarException) as error:
            logger.warning(
                "What %s received since the checkpoint cannot be read (%s): events that an earlier "
                "term sent there, and that are routed to other topics now, may be sent again",
                topic,
                type(error).__name__,
                extra={"action": "tail_unread"},
            )
            return False
        self._know(topic, tail)
        return True

    # --- opening -----------------------------------------------------------------------------

    def _opened(self, topic: Topic) -> Lane:
        import pulsar

        began = time.monotonic()
        try:
            lane = self._open_lane(topic)
        except (errors.PartitionedTopic, pulsar.PulsarException) as error:
            took = time.monotonic() - began
            reason = self._opening.why_not(topic, error)
            # What the checkpoint names was open once, and is bounded there.
            may_wait = len(self._waiting) < MOST_SHUT or self._saver.marks.is_declared(topic)
            if isinstance(error, pulsar.InvalidTopicName) or not may_wait:
                raise errors.Poison(reason) from error
            if not self._others_flow(topic):
                raise errors.TermEnded(f"{reason}; a new term begins") from error
            self._shut(topic, reason, took)
            raise errors.TopicNotOpen(reason, topic=topic) from error
        return lane

    def _others_flow(self, topic: Topic) -> bool:
        """Whether anything but this topic can be opened; if not, waiting is all that is left."""
        import pulsar

        for other in () if self._open else self._routing.topics:
            if other != topic:
                try:
                    self._open_lane(other)
                except errors.PartitionedTopic:
                    continue
                except pulsar.PulsarException as error:
                    if is_away(type(error).__name__):
                        break
        return bool(self._open)

    def _shut(self, topic: Topic, reason: str, took: float) -> None:
        if self._waiting.shut(topic, reason, took=took):
            logger.error(
                "%s. What goes there is set aside in quarantine, and goes there by itself and in "
                "its order once that is possible; all else flows",
                reason,
                extra={"action": "topic_shut", "topic": topic},
            )

    def open_again(self, topic: Topic, *, waiting_for: Topic) -> Lane | None:
        """Return the lane of a topic for rows that were set aside; None if it cannot be opened.

        They were set aside for `waiting_for`, which may be another one by now.
        """
        lane = self._open.get(topic)
        if lane is not None:
            return lane
        import pulsar

        began = time.monotonic()
        try:
            return self._open_lane(topic)
        except (errors.PartitionedTopic, pulsar.PulsarException) as error:
            reason = self._opening.why_not(topic, error)
            self._shut(waiting_for, reason, time.monotonic() - began)
            return None

    def _open_lane(self, topic: Topic) -> Lane:
        declared = self._saver.marks.is_declared(topic)
        is_scanning, has_mark = self._back.published_since is not None, self._saver.marks.of(topic)
        # A first start may have met it shut, and set aside what an earlier relay had sent there.
        has_tail = declared or is_scanning or self._waiting.reason(topic) is not None
        opened = self._opening.open(topic, self._span(topic) if has_tail else None)
        self._open[topic] = opened.lane
        if not declared:
            self._saver.declare(topic, opened.mark)
        self._saver.tenure.renew()
        if is_scanning and has_mark is None and opened.tail.ids:
            self.has_late_tails = True
        self._know(topic, opened.tail)
        return opened.lane

    def _span(self, topic: Topic) -> Span:
        is_declared = self._saver.marks.is_declared(topic)
        by_mark = self._back.is_unsure and is_declared
        return dataclasses.replace(
            self._back,
            mark=self._saver.marks.of(topic),
            published_since=None if by_mark else self._back.published_since,
            is_unsure=(self._back.is_unsure or self._back.published_since is None)
            and not is_declared,
        )

    def _know(self, topic: Topic, tail: Tail) -> None:
        count = len(tail.ids)
        self.tails[topic] = tail
        if self._waiting:
            # Wherever they were set aside for: routing may have sent them here since.
            self.arrived.update(tail.ids)
        self.known.absorb(tail.ids)
        if count:
            logger.info(
                "%d events after the checkpoint are on %s already and are left out",
                count,
                topic,
                extra={"action": "tail"},
            )

    # --- meanwhile ---------------------------------------------------------------------------

    def scan_is_over(self) -> None:
        """Read the tail of a lane from its mark on, from now on; what is in the tails was met.

        The stream goes on from a time after they were read.
        """
        self._back = dataclasses.replace(self._back, published_since=None, is_for_scan=False)
        self.has_late_tails = False
        self.known.clear()

    def replay_is_over(self) -> None:
        """Let go of the tails' ids: the stream has passed all that an earlier term can have sent.

        Not one by one as they are met: a row that was set aside, mended and put back stands in the
        change stream twice, and on its topic once.
        """
        self.known.clear()

    def forget(self) -> None:
        """Let go of all ids, and of the files in which they are."""
        self.known.clear()
        self.arrived.clear()
