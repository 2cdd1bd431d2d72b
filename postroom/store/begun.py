"""Begun: which events a worker had begun when it was ended, and how often that has happened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo import ReturnDocument, UpdateOne, WriteConcern

from postroom import wire
from postroom.store import expiry_index
from postroom.wire import BegunField, InboxField

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pymongo.database import Database

    from postroom.store.inbox_rows import RowId

__all__ = ["Begun", "Ends"]

KEEP = timedelta(days=1)
# The primary's memory is enough: what MongoDB loses with it is one crash that is not counted, and
# no handler has to wait for a journal.
QUICK = WriteConcern(w=1, j=False)
# Nor for an answer, where the event will not be begun again.
UNASKED = WriteConcern(w=0)
LAST_WORDS_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """How many workers ended while a handler was at work on an event, in a row.

    `told` by the handler's own hand, as the worker has said before it ended; `alone` by nobody
    knows whose, while nothing else ran.
    """

    told: int
    alone: int


class Begun:
    """Knows the events that were begun and never came to an end. Thread-safe.

    A handler that ends the process (os._exit, a crash in a library, too much memory) leaves no
    other trace: its event would come to the next worker, and end that too, for ever. Rows are
    written for the first events after a connect only, of those that the topic had then: these are
    what an ended worker held. For any other event they would be two commands of six.
    """

    def __init__(self, database: Database[Any], *, owner: str) -> None:
        self._owner = owner
        self._rows = database[wire.BEGUN].with_options(write_concern=QUICK)
        self._ended = self._rows.with_options(write_concern=UNASKED)

    def prepare(self) -> None:
        """Make the index by which rows expire."""
        expiry_index.prepare(
            self._rows,
            BegunField.BEGUN_AT,
            name=wire.BEGUN_EXPIRY_INDEX,
            seconds=int(KEEP.total_seconds()),
        )

    def begin(self, row_id: RowId) -> bool:
        """Note that an event is begun, unless another worker's note has no end; say if it has."""
        row = self._rows.find_one_and_update(
            {BegunField.ID: row_id.stored()},
            {"$setOnInsert": {BegunField.OWNER: self._owner, BegunField.BEGUN_AT: _now()}},
            upsert=True,
            return_document=ReturnDocument.BEFORE,
        )
        return row is not None and self._is_foreign(row)

    def is_begun(self, row_ids: Iterable[RowId]) -> bool:
        """Say whether another worker has begun one of several events, and not come to an end."""
        return any(map(self._is_foreign, self._rows.find(_among(row_ids))))

    def begin_together(self, row_ids: Sequence[RowId]) -> frozenset[str]:
        """Note that events are begun, unless another worker's note of one has no end.

        Returns the ids of those, as remembered.
        """
        found = filter(self._is_foreign, self._rows.find(_among(row_ids)))
        foreign = frozenset(row[BegunField.ID][InboxField.EVENT_ID] for row in found)
        if not foreign:
            note = {BegunField.OWNER: self._owner, BegunField.BEGUN_AT: _now()}
            stored = [{BegunField.ID: each.stored()} for each in row_ids]
            upserts = [UpdateOne(row, {"$setOnInsert": note}, upsert=True) for row in stored]
            self._rows.bulk_write(upserts, ordered=False)
        return foreign

    def begin_alone(self, row_id: RowId) -> Ends:
        """Note that an event is begun while nothing else runs; return how that ended before."""
        was_alone = {
            "$and": [
                {"$eq": [f"${BegunField.ALONE}", True]},
                {"$ne": [f"${BegunField.OWNER}", self._owner]},
            ]
        }
        row: Any = self._rows.find_one_and_update(
            {BegunField.ID: row_id.stored()},
            [
                {
                    "$set": {
                        BegunField.TOLD: _number(BegunField.TOLD),
                        BegunField.ALONE_ENDS: {
                            "$add": [
                                _number(BegunField.ALONE_ENDS),
                                {"$cond": [was_alone, 1, 0]},
                            ]
                        },
                    }
                },
                {
                    "$set": {
                        BegunField.ALONE: True,
                        BegunField.OWNER: self._owner,
                        BegunField.BEGUN_AT: _now(),
                    }
                },
            ],
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        return Ends(told=int(row[BegunField.TOLD]), alone=int(row[BegunField.ALONE_ENDS]))

    def tell(self, row_ids: Iterable[RowId]) -> None:
        """Say as the last thing that a handler ends its worker with these events."""
        with pymongo.timeout(LAST_WORDS_SECONDS):
            for row_id in row_ids:
                self._rows.update_one(
                    {BegunField.ID: row_id.stored()},
                    {
                        "$inc": {BegunField.TOLD: 1},
                        # What is told needs no count of what is not.
                        "$set": {BegunField.ALONE: False, BegunField.BEGUN_AT: _now()},
                        "$setOnInsert": {BegunField.OWNER: self._owner},
                    },
                    upsert=True,
                )

    def end(self, row_ids: Iterable[RowId], *, for_good: bool) -> None:
        """Note that events have come to an end; they may be begun again unless it is for good."""
        rows = self._ended if for_good else self._rows
        rows.delete_many(_among(row_ids))

    def _is_foreign(self, row: Mapping[str, Any]) -> bool:
        # An own one was left by an outage: this worker lives.
        return bool(row.get(BegunField.OWNER) != self._owner)


def _among(row_ids: Iterable[RowId]) -> dict[str, Any]:
    return {BegunField.ID: {"$in": [each.stored() for each in row_ids]}}


def _number(field: str) -> dict[str, Any]:
    return {"$ifNull": [f"${field}", 0]}


def _now() -> datetime:
    return datetime.now(UTC)
