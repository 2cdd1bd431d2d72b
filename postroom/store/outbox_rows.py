"""The outbox's rows: what is looked up, marked, put again and pruned."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS
from pymongo import WriteConcern
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import errors, wire
from postroom.server_codes import SNAPSHOT_GONE
from postroom.store.codec import RAW, READING, Row, Unreadable, decoded
from postroom.store.partitioning_record import run
from postroom.store.partitionings import is_closed, is_refusal
from postroom.store.plainness import make_plain, oddity
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bson import Binary, CodecOptions, ObjectId, Timestamp
    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from postroom.partitioning import Partitioning
    from postroom.store.values import OutboxPartition

__all__ = ["OutboxRows"]

READ_MS = 10_000
WRITE_MS = 10_000
COLLECTION_UUID_MISMATCH = 361
UNKNOWN_FIELD_CODES = frozenset({40415, 9})


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
        """Make the collection, which a change stream needs to begin at a time.

        Several relays may do so at once.

        Raises:
            ServiceUnavailable: what is there under its name cannot be relayed from.

        """
        found = next(self._database.list_collections(filter={"name": wire.OUTBOX}), None)
        if found is None:
            make_plain(self._database, wire.OUTBOX)
        elif (kind := oddity(found)) is not None:
            raise errors.ServiceUnavailable(
                f"{wire.OUTBOX} of database {self._database.name!r} is {kind}: no event can be "
                "relayed from it. It is looked at again; move its rows into a plain collection of "
                "that name (docs/guarantees.md)"
            )

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
        self, *, at: Timestamp | None, before: ObjectId, after: ObjectId | None = None, limit: int
    ) -> list[ObjectId] | None:
        """Return the ids of the oldest rows by their ObjectIds, between two of them.

        Of those that had been committed at a cluster time, or else by now; None where MongoDB,
        which keeps for some minutes what was, can no longer tell.
        """
        command = {
            "find": wire.OUTBOX,
            "filter": {
                OutboxField.ID: {"$lt": before} if after is None else {"$lt": before, "$gt": after},
                OutboxField.PARTITION: self._partition,
            },
            "projection": {OutboxField.ID: 1},
            "sort": {OutboxField.ID: 1},
            "limit": limit,
        }
        return self._found(command, at, DEFAULT_CODEC_OPTIONS)

    def there(self, ids: Sequence[Any], *, at: Timestamp) -> list[Any] | None:
        """Return those of some ids, few enough for one reply, that were there at a cluster time.

        None where MongoDB, which keeps for some minutes what was, can no longer tell.
        """
        command = {
            "find": wire.OUTBOX,
            "filter": {
                OutboxField.ID: {"$in": list(ids)},
                OutboxField.PARTITION: self._partition,
            },
            "projection": {OutboxField.ID: 1},
            "limit": len(ids),
        }
        return self._found(command, at, READING)

    def _found(
        self, command: Mapping[str, Any], at: Timestamp | None, codec_options: CodecOptions[Any]
    ) -> list[Any] | None:
        concern = {"level": "snapshot", "atClusterTime": at} if at else {"level": "majority"}
        asked = {
            **command,
            "batchSize": command["limit"],
            "singleBatch": True,
            "maxTimeMS": READ_MS,
            "readConcern": concern,
        }
        try:
            reply = self._database.command(asked, codec_options=codec_options)
        except mongo.OperationFailure as error:
            if error.code not in SNAPSHOT_GONE:
                raise
            return None
        return [row[OutboxField.ID] for row in reply["cursor"]["firstBatch"]]

    def delete_from(self, collection: Binary, ids: Sequence[Any]) -> int | None:
        """Delete rows of the collection with that UUID, and return how many were there.

        None where the outbox is another collection by now: nothing was deleted.
        """
        command = {
            "delete": wire.OUTBOX,
            "deletes": [{"q": {OutboxField.ID: {"$in": list(ids)}}, "limit": 0}],
            "writeConcern": {"w": "majority", "wtimeout": WRITE_MS},
        }
        try:
            try:
                reply = self._database.command({**command, "collectionUUID": collection})
            except mongo.OperationFailure as error:
                if error.code not in UNKNOWN_FIELD_CODES:
                    raise
                # MongoDB 5 takes no UUID; there it is asked before.
                if self.collection() != collection:
                    return None
                reply = self._database.command(command)
        except mongo.OperationFailure as error:
            if error.code != COLLECTION_UUID_MISMATCH:
                raise
            return None
        return int(reply["n"])

    def collection(self) -> Binary | None:
        """Return the UUID of the outbox's collection as it is now, or None where there is none."""
        found = self._database.list_collections(filter={"name": wire.OUTBOX})
        return next((each["info"].get("uuid") for each in found), None)

    def mark_sent(self, ids: Sequence[Any]) -> None:
        """Write the time of sending, as Hermes does, into rows that have none yet.

        Not where the outbox partition is closed: by then MongoDB takes no change of its rows.
        """
        unmarked = {OutboxField.ID: {"$in": list(ids)}, OutboxField.SENT_AT: {"$exists": False}}
        try:
            self._rows.update_many(unmarked, {"$set": {OutboxField.SENT_AT: datetime.now(UTC)}})
        except mongo.WriteError as error:
            if not is_refusal(error) or not run(self._database, is_closed(self._partition)):
                raise

    def place(
        self, row_id: Any, partitioning: Partitioning, session: ClientSession
    ) -> OutboxPartition | None:
        """Have a row belong to one of other outbox partitions, by its key; return to which one.

        To any where it has no key; None where there is no such row.
        """
        found = self._rows.find_one({OutboxField.ID: row_id}, session=session)
        if found is None:
            return None
        row = decoded(bytes(found.raw))
        key = None if isinstance(row, Unreadable) else row.get(OutboxField.KEY)
        index = partitioning.of_key(key if isinstance(key, str) else str(row_id))
        name = partitioning.names[index]
        self._rows.update_one(
            {OutboxField.ID: row_id}, {"$set": {OutboxField.PARTITION: name}}, session=session
        )
        return name

    def put_again(self, row_id: Any, session: ClientSession) -> bool:
        """Delete a row and insert it as it is, within the session's transaction.

        The change stream shows it as a new row under the id that it had. Says whether it was there.
        """
        row = self._rows.find_one_and_delete({OutboxField.ID: row_id}, session=session)
        if row is not None:
            self._rows.insert_one(row, session=session)
        return row is not None
