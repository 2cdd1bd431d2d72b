"""A chunk: what one batch became, on its way until all of it is stored."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from postroom import tracing
from postroom.store.codec import Unreadable, id_of
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from postroom.store.checkpoints import Point
    from postroom.store.codec import Row
    from postroom.store.quarantine import Quarantined
    from postroom.store.values import Mark
    from postroom.topics import Topic

__all__ = ["Chunk", "Landed"]


class Landed(NamedTuple):
    """A chunk's part on one topic is stored, up to a mark."""

    chunk: Chunk
    topic: Topic
    mark: Mark


@dataclass(slots=True, kw_only=True)
class Chunk:
    """One batch's letters, sent but perhaps not stored.

    `awaiting` holds the topics that have not yet stored their part, `batched` those of them that
    it left to as a batch, `marks` the mark of each that has; so many `bursts` had left by then.
    Without a `point` a chunk is checkpointed with the next one that has one. `row_ids` are
    collected where they are asked for by a list. What is a replay an earlier term may have seen,
    and what is a scan comes in the order of ids. A chunk of rows that were
    set aside for a topic names it in `returned_for`, and in `returned` those that are done with it.
    `committed_at` is when its first
    row was, where MongoDB tells, and `occurred_at` what that row says. `parents` are the sampled
    traceparents of some rows, where they are asked for by a list.
    """

    point: Point | None
    position: int = 0
    last_id: Any = None
    rows: int = 0
    sent: int = 0
    payload_bytes: int = 0
    awaiting: set[Topic] = field(default_factory=set)
    marks: dict[Topic, Mark] = field(default_factory=dict)
    poison: list[Quarantined] = field(default_factory=list)
    row_ids: list[Any] | None = None
    is_replay: bool = False
    is_scan: bool = False
    batched: set[Topic] = field(default_factory=set)
    bursts: int = 0
    brake_level: int = 0
    returned_for: Topic | None = None
    returned: list[Any] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    sealed: float = 0.0
    committed_at: datetime | None = None
    occurred_at: Any = None
    parents: list[str] | None = None

    def add(self, rows: Sequence[Row]) -> None:
        """Take note of rows that were filled in, sent or not."""
        if not self.rows and not isinstance(rows[0], Unreadable):
            self.occurred_at = rows[0].get(OutboxField.OCCURRED_AT)
        if self.parents is not None:
            self._note_parents(self.parents, rows)
        self.rows += len(rows)
        self.last_id = id_of(rows[-1])
        if self.row_ids is not None:
            self.row_ids += map(id_of, rows)

    def _note_parents(self, parents: list[str], rows: Sequence[Row]) -> None:
        for row in rows:
            if len(parents) >= tracing.MOST_LINKS:
                return
            headers = None if isinstance(row, Unreadable) else row.get(OutboxField.HEADERS)
            carried = tracing.context_in(headers) if isinstance(headers, Mapping) else {}
            if carried and tracing.is_sampled(carried[tracing.PARENT]):
                parents.append(carried[tracing.PARENT])

    @property
    def skipped(self) -> int:
        """How many rows the topics had already."""
        if self.returned_for is not None:
            return len(self.returned) - self.sent
        return self.rows - self.sent - len(self.poison)
