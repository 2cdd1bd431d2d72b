"""The outbox's rows: what is looked up, marked, put again and pruned."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo import WriteConcern
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store.codec import RAW, Row, decoded
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bson import ObjectId
    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from postroom.store.values import OutboxPartition

__all__ = ["OutboxRows"]

READ_MS = 10_000
WRITE_MS = 10_000


class OutboxRows:
    """One outbox partition's rows, for all but the way to the topic. Thread-safe.

    Reads show what a majority has stored, so that a primary that was deposed decides nothing;
    they take ten seconds at most.
    """

    def __init__(self, database: Database[Any], *, partition: OutboxPartition) -> None:
        self._database = database
        # Raw: a row that cannot be decoded stays as it is.
        self._rows = database[wire.OUTBOX].with_options(
            codec_options=RAW,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern(w="majority", wtimeout=WRITE_MS),
        )
        self._partition = partition

    def ensure_collection(self) -> None:
        """Make the collection, which a change stream needs to begin at a time."""
        if wire.OUTBOX not in self._database.list_collection_names(filter={"name": wire.OUTBOX}):
            self._database.create_collection(wire.OUTBOX, check_exists=False)

    def count(self, *, limit: int) -> int:
        """Count the rows, at most `limit`."""
        return self._rows.count_documents(
            {OutboxField.PARTITION: self._partition}, limit=limit, maxTimeMS=READ_MS
        )

    def find(self, row_id: Any) -> Row | None:
        """Return a row as it is now, or None if it is gone."""
        found = self._rows.find_one({OutboxField.ID: row_id}, max_time_ms=READ_MS)
        return None if found is None else decoded(bytes(found.raw))

    def find_all(self, ids: Sequence[Any]) -> dict[Any, Row]:
        """Return the rows that are there, as they are now, by id."""
        found = self._rows.find({OutboxField.ID: {"$in": list(ids)}}, max_time_ms=READ_MS)
        return {row[OutboxField.ID]: decoded(bytes(row.raw)) for row in found}

    def oldest_ids(
        self, *, before: ObjectId, after: ObjectId | None = None, limit: int
    ) -> list[ObjectId]:
        """Return the ids of the oldest rows by their ObjectIds, between two of them."""
        bounds = {"$lt": before} if after is None else {"$lt": before, "$gt": after}
        found = self._rows.find(
            {OutboxField.ID: bounds, OutboxField.PARTITION: self._partition},
            {OutboxField.ID: 1},
            sort=[(OutboxField.ID, 1)],
            max_time_ms=READ_MS,
        )
        return [row[OutboxField.ID] for row in found.limit(limit)]

    def delete(self, ids: Sequence[Any]) -> int:
        """Delete rows, and return how many were there."""
        return self._rows.delete_many({OutboxField.ID: {"$in": list(ids)}}).deleted_count

    def mark_sent(self, ids: Sequence[Any]) -> None:
        """Write the time of sending, as Hermes does, into rows that have none yet."""
        unmarked = {OutboxField.ID: {"$in": list(ids)}, OutboxField.SENT_AT: {"$exists": False}}
        self._rows.update_many(unmarked, {"$set": {OutboxField.SENT_AT: datetime.now(UTC)}})

    def put_again(self, row_id: Any, session: ClientSession) -> bool:
        """Delete a row and insert it as it is, within the session's transaction.

        The change stream shows it as a new row under the id that it had. Says whether it was there.
        """
        row = self._rows.find_one_and_delete({OutboxField.ID: row_id}, session=session)
        if row is not None:
            self._rows.insert_one(row, session=session)
        return row is not None
