"""The lookahead: which of the events that the topics have already stand behind which rows."""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import TYPE_CHECKING

from postroom.events import id_text
from postroom.store.codec import id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from postroom.relay.reading.batch import Batch
    from postroom.relay.reading.reader import Reader
    from postroom.relay.reading.replay import Replay

__all__ = ["Lookahead"]

# More than may be in flight, with the batch that was the last to join it: what a topic lacks is not
# further from what it has.
MOST_ROWS = 14_000
MOST_BYTES = 48 << 20


class Lookahead:
    """Hands on a reader's batches, those of a replay not before what follows them is known too.

    A row that a topic lacks although it has later ones was refused in its turn, for instance by a
    policy that was set while it was under way. Sent now it would come out of order. `met` hears of
    each row that the topics have, and its number among all, counted from 1. Used by the term's
    thread alone.
    """

    def __init__(self, reader: Reader, replay: Replay, *, met: Callable[[str, int], None]) -> None:
        self._reader = reader
        self._replay = replay
        self._met = met
        self._held: deque[Batch] = deque()
        self._held_rows = 0
        self._held_bytes = 0
        self._rows = 0
        self._found: set[str] = set()

    def take(self, known: Collection[str]) -> Batch | None:
        """Return the next batch that may be sent, if there is one; `known` are the topics' ids."""
        if known and not self._replay.is_scanning:
            while self._reader.has_arrived and not self._is_enough(known):
                self._hold(self._reader.take(), known)
                self._reader.make_room()
            if not self._is_enough(known):
                return None
        if self._held:
            return self._let_go()
        if not self._reader.has_arrived:
            return None
        batch = self._reader.take()
        self._reader.make_room()
        return batch

    def _hold(self, batch: Batch, known: Collection[str]) -> None:
        slices = [list(rows) for rows in batch.slices]
        self._held.append(dataclasses.replace(batch, slices=slices))
        self._held_bytes += batch.size
        self._held_rows += sum(map(len, slices))
        for row in (row for rows in slices for row in rows):
            self._rows += 1
            if (row_id := id_text(id_of(row))) in known:
                self._found.add(row_id)
                self._met(row_id, self._rows)

    def _let_go(self) -> Batch:
        batch = self._held.popleft()
        self._held_bytes -= batch.size
        self._held_rows -= sum(len(rows) for rows in batch.slices)
        return batch

    def _is_enough(self, known: Collection[str]) -> bool:
        """Say whether all known ids were met, or what was not is too far away or not to come."""
        if self._held_rows >= MOST_ROWS or self._held_bytes >= MOST_BYTES:
            return True
        if not self._held:
            return False
        last = self._held[-1]
        return len(self._found) >= len(known) or bool(
            last.ends_with or self._replay.covers(last.point)
        )
