"""Returning: rows that were set aside for a topic go there once it can be opened."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

from postroom import errors
from postroom.events import id_text
from postroom.relay.saving.chunk import Chunk
from postroom.store import letter
from postroom.store.quarantine import Quarantined

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from postroom.relay.sending.arrivals import Arrivals
    from postroom.relay.sending.experience import Experience
    from postroom.relay.sending.lane import Lane
    from postroom.relay.sending.lanes import Lanes
    from postroom.relay.sending.waiting import Waiting
    from postroom.routing import Routing
    from postroom.store.codec import Row
    from postroom.store.letter import Letter
    from postroom.store.outbox_rows import OutboxRows
    from postroom.store.quarantine import Entry, Quarantine
    from postroom.topics import Topic

__all__ = ["Returning"]

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 500
# Their ids take some megabytes; where more wait, none returns before the scan is over.
MOST_UNMET = 20_000


class Returning:
    """Makes chunks of rows from quarantine; used by the term's thread alone.

    Only what neither the stream nor a scan can show again in this term may return: it would be sent
    twice. In a scan that is what this term has set aside itself; it stops before the first row of
    an earlier term, since each topic keeps its order.
    """

    def __init__(
        self,
        *,
        waiting: Waiting,
        lanes: Lanes,
        arrivals: Arrivals,
        quarantine: Quarantine,
        outbox: OutboxRows,
        routing: Routing,
        experience: Experience,
    ) -> None:
        self._waiting = waiting
        self._lanes = lanes
        self._arrivals = arrivals
        self._quarantine = quarantine
        self._outbox = outbox
        self._routing = routing
        self._experience = experience
        self._under_way: set[Topic] = set()
        self._returning: set[Topic] = set()
        self._unmet: set[str] | None = set()

    def begin(self, *, is_scanning: bool) -> None:
        """Take note of what earlier terms have set aside, and a scan may be about to meet."""
        unmet: set[str] = set()
        for topic in self._quarantine.awaited_topics() if is_scanning else ():
            left = MOST_UNMET + 1 - len(unmet)
            unmet.update(str(each.row_id) for each in self._quarantine.awaiting(topic, limit=left))
            if len(unmet) > MOST_UNMET:
                break
        self._unmet = unmet if len(unmet) <= MOST_UNMET else None

    @property
    def may_in_scan(self) -> bool:
        """Whether anything may return before the scan is over."""
        return self._unmet is not None

    def set_aside(self, rows: Iterable[Quarantined]) -> None:
        """Note that rows were set aside by this term, and are in quarantine."""
        if self._unmet:
            self._unmet.difference_update(str(row.row_id) for row in rows)

    def scan_is_over(self) -> None:
        """Note that nothing is met any more."""
        self._unmet = set()

    def next(self) -> Chunk | None:
        """Return a chunk whose rows are on their lane, or None where nothing can return now."""
        for topic in self._waiting.due():
            if topic in self._under_way:
                continue
            entries = self._quarantine.awaiting(topic, limit=ROWS_AT_ONCE)
            if entries:
                chunk = self._chunk(topic, self._met(entries))
                if chunk is not None:
                    self._under_way.add(topic)
                    self._returning.add(topic)
                    return chunk
            elif self._waiting.is_over(topic) and topic in self._returning:
                self._returning.discard(topic)
                logger.info(
                    "All that was set aside for %s is there now",
                    topic,
                    extra={"action": "topic_open"},
                )
        return None

    def _met(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        unmet = self._unmet
        if not unmet:
            return entries
        return list(itertools.takewhile(lambda entry: str(entry.row_id) not in unmet, entries))

    def landed(self, chunk: Chunk) -> None:
        """Forget the entries of what is stored now."""
        if chunk.returned_for is not None:
            self._quarantine.forget_returned(chunk.returned)
            self._under_way.discard(chunk.returned_for)

    def _chunk(self, topic: Topic, entries: Sequence[Entry]) -> Chunk | None:
        chunk, lane = Chunk(point=None, returned_for=topic), None
        rows = self._outbox.find_all([entry.row_id for entry in entries])
        for entry in entries:
            try:
                ready = self._letter(entry, rows.get(entry.row_id), chunk)
                if ready is None:
                    continue
                if lane is None:
                    # Routing may have changed since.
                    lane = self._lanes.open_again(ready.topic, waiting_for=topic)
                    if lane is not None and (found := self._arrivals.found(topic)):
                        chunk.returned = self._gone(chunk.returned) + found
                        break
                if lane is None or ready.topic != lane.topic:
                    break
                if ready.id in self._lanes.arrived:
                    # The topic was opened just now, and has it.
                    chunk.returned.append(entry.row_id)
                    continue
                self._arrivals.require_in_order(ready, entry)
                self._queue(lane, ready, entry)
            except (errors.Poison, errors.RoutingFailed) as failed:
                poison = self._judged(topic, entry, failed)
                if poison is None:
                    break
                chunk.poison.append(poison)
                continue
            chunk.returned.append(entry.row_id)
            chunk.sent += 1
            chunk.payload_bytes += ready.size
        return chunk if chunk.returned or chunk.poison else None

    def _gone(self, ids: Sequence[Any]) -> list[Any]:
        return [each for each in ids if id_text(each) not in self._lanes.arrived]

    def _judged(
        self, topic: Topic, entry: Entry, failed: errors.Poison | errors.RoutingFailed
    ) -> Quarantined | None:
        """Say what becomes of a row that cannot be sent; None where it is asked for again."""
        poison: errors.RelayError = failed
        if isinstance(failed, errors.RoutingFailed):
            try:
                poison = self._experience.unanswered.judged(entry.row_id, failed)
            except errors.RoutingFailed as waited:
                logger.warning("%s", waited, extra={"action": "unanswered", "topic": topic})
                self._waiting.shut(topic, str(waited), took=0.0)
                return None
        return Quarantined(row_id=entry.row_id, position=entry.position or 0, reason=str(poison))

    def _letter(self, entry: Entry, row: Row | None, chunk: Chunk) -> Letter | None:
        """Make an entry's letter; None, and the entry is done with, where there is none to send."""
        if row is None or id_text(entry.row_id) in self._lanes.arrived:
            chunk.returned.append(entry.row_id)
            return None
        return letter.write(row, self._routing, self._experience.largest)

    def _queue(self, lane: Lane, ready: Letter, entry: Entry) -> None:
        # The number that the row had, unless it goes elsewhere now, behind what flows there.
        lane.floor = max(entry.position or 0, lane.floor + 1, lane.last + 1)
        lane.queue(ready, lane.floor)
