"""Settled rows: set aside for good, or discarded, so that no scan is to send them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.wire import QuarantineField

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymongo.database import Database

    from postroom.store.values import OutboxPartition

__all__ = ["Settled"]

READ_MS = 10_000


class Settled:
    """Tells of the rows that terms up to a position set aside for people to decide on.

    What waits for a topic is none of them, and neither is what was retried. Safe from any thread.
    """

    def __init__(
        self, database: Database[Any], *, partition: OutboxPartition, position: int
    ) -> None:
        self._rows = database[wire.QUARANTINE].with_options(read_concern=ReadConcern("majority"))
        waiting = {QuarantineField.RETRIED_AT: None, QuarantineField.TOPIC: None}
        self._query = {
            QuarantineField.PARTITION: partition,
            QuarantineField.POSITION: {"$lte": position},
            "$or": [waiting, {QuarantineField.DISCARDED_AT: {"$ne": None}}],
        }

    def any(self) -> bool:
        """Say whether there is one."""
        found = self._rows.find_one(self._query, {QuarantineField.ID: 1}, max_time_ms=READ_MS)
        return found is not None

    def among(self, ids: Sequence[Any]) -> list[Any]:
        """Return those of `ids`."""
        found = self._rows.find(
            {QuarantineField.ID: {"$in": list(ids)}, **self._query},
            {QuarantineField.ID: 1},
            max_time_ms=READ_MS,
        )
        return [row[QuarantineField.ID] for row in found]
