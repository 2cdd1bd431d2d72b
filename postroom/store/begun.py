"""Begun: which events a worker had begun when it was ended, and how often that has happened."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pymongo import ReturnDocument, WriteConcern

from postroom import wire
from postroom.wire import BegunField

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pymongo.database import Database

    from postroom.store.inbox_rows import RowId

__all__ = ["Begun"]

KEEP = timedelta(days=1)
# The primary's memory is enough: what MongoDB loses with it is one crash that is not counted, and
# no handler has to wait for a journal.
QUICK = WriteConcern(w=1, j=False)
# Nor for an answer, where the event will not be begun again.
UNASKED = WriteConcern(w=0)


class Begun:
    """Counts the times a handler was begun with an event and never came back. Thread-safe.

    A handler that ends the process (os._exit, a crash in a library, too much memory) leaves no
    other trace: its event would come to the next worker, and end that too, for ever. Rows are
    written for the first events after a connect only, since those are what an ended worker held.
    """

    def __init__(self, database: Database[Any]) -> None:
        self._rows = database[wire.BEGUN].with_options(write_concern=QUICK)
        self._ended = self._rows.with_options(write_concern=UNASKED)

    def prepare(self) -> None:
        """Make the index by which rows expire."""
        seconds = int(KEEP.total_seconds())
        self._rows.create_index(
            BegunField.BEGUN_AT, name=wire.BEGUN_EXPIRY_INDEX, expireAfterSeconds=seconds
        )

    def begin(self, row_id: RowId) -> int:
        """Note that an event is begun, and return how often it was so before without an end."""
        row = self._rows.find_one_and_update(
            {BegunField.ID: row_id.stored()},
            {
                "$inc": {BegunField.TIMES: 1},
                "$set": {BegunField.BEGUN_AT: datetime.now(UTC)},
            },
            upsert=True,
            return_document=ReturnDocument.BEFORE,
        )
        return int(row[BegunField.TIMES]) if row else 0

    def times(self, row_ids: Iterable[RowId]) -> int:
        """Return how often one of several events was begun without an end."""
        found = self._rows.find(_among(row_ids), {BegunField.TIMES: 1})
        return max((int(row[BegunField.TIMES]) for row in found), default=0)

    def end(self, row_ids: Iterable[RowId], *, for_good: bool) -> None:
        """Note that events have come to an end; they may be begun again unless it is for good."""
        rows = self._ended if for_good else self._rows
        rows.delete_many(_among(row_ids))


def _among(row_ids: Iterable[RowId]) -> dict[str, Any]:
    return {BegunField.ID: {"$in": [each.stored() for each in row_ids]}}
