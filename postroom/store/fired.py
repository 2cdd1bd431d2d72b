"""Fired: the ids of what was moved out of the plan are kept for a while, a row for each move.

A cancel that comes too late is told so by it, and a scan after lost history finds the rows in the
outbox, whose ids may be years old. Names go with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson import ObjectId
from pymongo import WriteConcern
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.server_codes import UNAUTHORIZED
from postroom.store.codec import RAW, READING
from postroom.store.schedule_names import Named, ScheduleNames
from postroom.wire import FiredField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from postroom.store.due_row import DueRow
    from postroom.store.moment import Moment
    from postroom.store.values import OutboxPartition

__all__ = ["Fired", "note", "with_id"]

MS = 10_000
ROWS_A_REPLY = 1000
# Each may have a thousand names.
NAMED_AT_ONCE = 10
# An id that is no UTF-8, as of a row written by hand, is no event's, and hides none.
IDS = READING.with_options(unicode_decode_error_handler="replace")


def with_id(base: str, row_id: Any) -> dict[str, Any]:
    """Return the condition for the row that stands for an event of an outbox which was fired."""
    return {FiredField.IDS: row_id, FiredField.PARTITION: base}


def note(
    database: Database[Any],
    rows: Sequence[DueRow],
    *,
    base: str,
    partition: OutboxPartition,
    session: ClientSession,
) -> None:
    """Note what is moved together, in the transaction that moves it.

    Raises:
        pymongo.errors.PyMongoError: MongoDB refused or did not answer.

    """
    named = [
        {FiredField.EVENT_ID: row.row_id, FiredField.SCHEDULE: row.name}
        for row in rows
        if row.name is not None
    ]
    fields = {
        FiredField.PARTITION: {"$literal": base},
        FiredField.INTO: {"$literal": partition},
        FiredField.AT: "$$NOW",
        FiredField.IDS: {"$literal": [row.row_id for row in rows]},
        **({FiredField.NAMED: {"$literal": named}} if named else {}),
    }
    # Of which the last moment counts: only an update knows MongoDB's time.
    fired = database.get_collection(wire.FIRED, codec_options=RAW)
    fired.update_one({FiredField.ID: ObjectId()}, [{"$set": fields}], upsert=True, session=session)


class Fired:
    """What was fired into some outbox partitions a while ago. Safe from any thread."""

    def __init__(self, database: Database[Any], partitions: Sequence[str]) -> None:
        self._rows = database.get_collection(
            wire.FIRED,
            codec_options=IDS,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", wtimeout=MS),
        )
        self._names = ScheduleNames(database)
        self._partitions = list(partitions)

    def is_empty(self) -> bool:
        """Whether nothing is kept, of any outbox partition; looked at without any index."""
        return self._rows.find_one({}, {FiredField.ID: 1}, max_time_ms=MS) is None

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
            "projection": {FiredField.IDS: 1},
            "batchSize": ROWS_A_REPLY,
        }
        try:
            found = moment.find_all(command, self._rows.codec_options)
            return [
                each
                for row in found
                for each in row.get(FiredField.IDS, ())
                if _is_before(each, before)
            ]
        except mongo.OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise
            return []

    def forget(self, before: datetime) -> int:
        """Let go of what was fired before a time, since it has been relayed by then.

        What is cut short goes on from there the next time.
        """
        found = self._found({"$lt": before})
        count = self._rows.delete_many({**found, FiredField.NAMED: None}).deleted_count
        while some := list(self._rows.find(found, {FiredField.IDS: 0}, limit=NAMED_AT_ONCE)):
            self._names.take_all([each for row in some for each in _named(row)])
            ids = {"$in": [row[FiredField.ID] for row in some]}
            count += self._rows.delete_many({FiredField.ID: ids}).deleted_count
        return count

    def _found(self, at: Mapping[str, Any]) -> dict[str, Any]:
        return {FiredField.INTO: {"$in": self._partitions}, FiredField.AT: at}


def _named(row: Mapping[str, Any]) -> list[Named]:
    base = row[FiredField.PARTITION]
    return [
        Named(base=base, name=each[FiredField.SCHEDULE], row_id=each[FiredField.EVENT_ID])
        for each in row[FiredField.NAMED]
    ]


def _is_before(row_id: Any, before: ObjectId | None) -> bool:
    # An id of another kind says nothing of when its row was written.
    return before is None or not isinstance(row_id, ObjectId) or row_id < before
