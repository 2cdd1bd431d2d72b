"""Fired: what was moved out of the plan keeps its id there for a while.

A cancel that comes too late is told so by it, and a scan after lost history finds the row in the
outbox, whose id may be years old. Of what was moved together without names one row stands for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson import ObjectId
from pymongo import WriteConcern
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.server_codes import UNAUTHORIZED
from postroom.store.codec import READING
from postroom.wire import ScheduledField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pymongo.database import Database

    from postroom.store.moment import Moment

__all__ = ["Fired", "ids_in", "with_id"]

MS = 10_000
ROWS_A_REPLY = 100_000
# An id that is no UTF-8, as of a row written by hand, is no event's, and hides none.
IDS = READING.with_options(unicode_decode_error_handler="replace")


def with_id(condition: Any) -> list[dict[str, Any]]:
    """Return the conditions of which one finds the row that stands for what was fired by an id."""
    return [
        {ScheduledField.ID: condition, ScheduledField.FIRED_ID: {"$ne": None}},
        {ScheduledField.FIRED_IDS: condition},
    ]


def ids_in(row: Mapping[str, Any]) -> list[Any]:
    """Return the ids of all that a row stands for."""
    return [row[ScheduledField.ID], *row.get(ScheduledField.FIRED_IDS, ())]


class Fired:
    """What was fired into some outbox partitions a while ago. Safe from any thread."""

    def __init__(self, database: Database[Any], partitions: Sequence[str]) -> None:
        self._rows = database.get_collection(
            wire.SCHEDULED,
            codec_options=IDS,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", wtimeout=MS),
        )
        self._partitions = list(partitions)

    def since(
        self, since: datetime, moment: Moment, *, before: ObjectId | None = None
    ) -> list[Any]:
        """Return the ids of what was fired since, as it was at a moment.

        With `before` no ObjectIds from that one on; ids of other kinds are among them always. None
        where the plan may not be read: who may not has fired nothing.

        Raises:
            SnapshotGone: that moment is too long ago.

        """
        command = {
            "find": self._rows.name,
            "filter": self._found({"$gte": since}),
            "projection": {ScheduledField.ID: 1, ScheduledField.FIRED_IDS: 1},
            "batchSize": ROWS_A_REPLY,
        }
        try:
            found = moment.find_all(command, self._rows.codec_options)
            return [each for row in found for each in ids_in(row) if _is_before(each, before)]
        except mongo.OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise
            return []

    def forget(self, before: datetime) -> int:
        """Let go of what was fired before a time, since it has been relayed by then."""
        return self._rows.delete_many(self._found({"$lt": before})).deleted_count

    def _found(self, at: Mapping[str, Any]) -> dict[str, Any]:
        return {
            ScheduledField.FIRED_INTO: {"$in": self._partitions},
            ScheduledField.FIRED_AT: at,
        }


def _is_before(row_id: Any, before: ObjectId | None) -> bool:
    # An id of another kind says nothing of when its row was written.
    return before is None or not isinstance(row_id, ObjectId) or row_id < before
