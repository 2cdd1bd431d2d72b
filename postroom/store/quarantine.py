"""The quarantine: rows that can never be sent, kept by id with the reason, so the rest flows on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING, UpdateOne, WriteConcern
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store.outbox_rows import OutboxRows
from postroom.wire import QuarantineField

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bson import Timestamp
    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from postroom.store.values import OutboxPartition

__all__ = ["Entry", "Quarantine", "Quarantined"]


READ_MS = 10_000
WRITE_MS = 10_000
# Far more than one reply could hold.
MOST_RETRIED = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """One row that can never be sent, its number in the outbox partition, and why."""

    row_id: Any
    position: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row in quarantine, as it is listed."""

    row_id: Any
    position: int | None
    reason: str
    quarantined_at: datetime | None


class Quarantine:
    """Stores quarantined rows' ids; the rows stay in the outbox and are never pruned.

    An entry that is retried is kept, unseen, until its row must have been relayed: the row's id may
    be so old that pruning, or a scan after lost history, would pass it by.
    """

    def __init__(self, database: Database[Any], *, partition: OutboxPartition) -> None:
        self._rows = database[wire.QUARANTINE].with_options(
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern(w="majority", wtimeout=WRITE_MS),
        )
        self._outbox = OutboxRows(database, partition=partition)
        self._partition = partition
        self._waiting = {
            QuarantineField.PARTITION: partition,
            QuarantineField.RETRIED_AT: None,
        }

    def store(self, rows: Iterable[Quarantined]) -> None:
        """Store them; the same row stored twice, as a replay does, is one entry."""
        now = datetime.now(UTC)
        self._rows.bulk_write(
            [
                UpdateOne(
                    {QuarantineField.ID: row.row_id},
                    {
                        "$set": {
                            QuarantineField.REASON: row.reason,
                            QuarantineField.POSITION: row.position,
                        },
                        "$unset": {QuarantineField.RETRIED_AT: ""},
                        "$setOnInsert": {
                            QuarantineField.PARTITION: self._partition,
                            QuarantineField.QUARANTINED_AT: now,
                        },
                    },
                    upsert=True,
                )
                for row in rows
            ]
        )

    def entries(self, *, limit: int = 0) -> list[Entry]:
        """Return what is in quarantine, oldest first; at most `limit` entries if that is given."""
        found = self._rows.find(self._waiting).sort(QuarantineField.QUARANTINED_AT, ASCENDING)
        return [
            Entry(
                row_id=row[QuarantineField.ID],
                position=row.get(QuarantineField.POSITION),
                reason=row.get(QuarantineField.REASON, ""),
                quarantined_at=row.get(QuarantineField.QUARANTINED_AT),
            )
            for row in found.limit(limit)
        ]

    def retry(self, row_id: Any) -> bool:
        """Have a row relayed as it is now, behind all others; return whether it was there.

        It is deleted and inserted again in one transaction, which the change stream shows as a new
        row under the id that it had.
        """

        def again(session: ClientSession) -> bool:
            found = self._outbox.put_again(row_id, session)
            if found:
                retried = {"$set": {QuarantineField.RETRIED_AT: datetime.now(UTC)}}
                self._rows.update_one({QuarantineField.ID: row_id}, retried, session=session)
            return found

        with self._rows.database.client.start_session() as session:
            return session.with_transaction(again)

    def discard(self, ids: list[Any]) -> int:
        """Forget rows, so that they are pruned like those that were sent; return how many."""
        found = {QuarantineField.ID: {"$in": ids}, QuarantineField.PARTITION: self._partition}
        return self._rows.delete_many(found).deleted_count

    def count(self) -> int:
        """Return how many rows are in quarantine."""
        return self._rows.count_documents(self._waiting, maxTimeMS=READ_MS)

    def retried_since(self, since: datetime, *, at: Timestamp) -> list[Any]:
        """Return the ids of rows that were retried since, as it was at a cluster time."""
        reply = self._rows.database.command(
            {
                "find": self._rows.name,
                "filter": {
                    QuarantineField.PARTITION: self._partition,
                    QuarantineField.RETRIED_AT: {"$gte": since},
                },
                "projection": {QuarantineField.ID: 1},
                "batchSize": MOST_RETRIED,
                "singleBatch": True,
                "readConcern": {"level": "snapshot", "atClusterTime": at},
            }
        )
        return [row[QuarantineField.ID] for row in reply["cursor"]["firstBatch"]]

    def forget_retried(self, before: datetime) -> None:
        """Let go of those that were retried before a time by which they have been relayed."""
        found = {
            QuarantineField.PARTITION: self._partition,
            QuarantineField.RETRIED_AT: {"$lt": before},
        }
        self._rows.delete_many(found)

    def among(self, ids: list[Any]) -> set[Any]:
        """Return those of `ids` that are quarantined, or were and may not have been relayed yet."""
        found = self._rows.find(
            {QuarantineField.ID: {"$in": ids}}, {QuarantineField.ID: 1}, max_time_ms=READ_MS
        )
        return {row[QuarantineField.ID] for row in found}
