"""The quarantine: rows that can never be sent, kept by id with the reason, so the rest flows on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo import UpdateOne

from postroom import wire
from postroom.store.outbox_rows import RAW

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bson import Timestamp
    from pymongo.client_session import ClientSession
    from pymongo.database import Database

__all__ = ["Entry", "Quarantine", "Quarantined"]


# Far more than one reply could hold.
MOST_RETRIED = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """One row that can never be sent, its number in the partition, and why."""

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

    def __init__(self, database: Database[Any], *, partition: str) -> None:
        self._rows = database[wire.QUARANTINE]
        # Raw: a row that cannot be decoded is put back as it is.
        self._outbox = database[wire.OUTBOX].with_options(codec_options=RAW)
        self._partition = partition
        self._waiting = {"partitionKey": partition, "retriedAt": None}

    def store(self, rows: Iterable[Quarantined]) -> None:
        """Store them; the same row stored twice, as a replay does, is one entry."""
        now = datetime.now(UTC)
        self._rows.bulk_write(
            [
                UpdateOne(
                    {"_id": row.row_id},
                    {
                        "$set": {"reason": row.reason, "position": row.position},
                        "$unset": {"retriedAt": ""},
                        "$setOnInsert": {
                            "partitionKey": self._partition,
                            "quarantinedAt": now,
                        },
                    },
                    upsert=True,
                )
                for row in rows
            ]
        )

    def entries(self, *, limit: int = 0) -> list[Entry]:
        """Return what is in quarantine, oldest first; at most `limit` entries if that is given."""
        found = self._rows.find(self._waiting).sort("quarantinedAt", 1)
        return [
            Entry(
                row_id=row["_id"],
                position=row.get("position"),
                reason=row.get("reason", ""),
                quarantined_at=row.get("quarantinedAt"),
            )
            for row in found.limit(limit)
        ]

    def retry(self, row_id: Any) -> bool:
        """Have a row relayed as it is now, behind all others; return whether it was there.

        It is deleted and inserted again in one transaction, which the change stream shows as a new
        row under the id that it had.
        """

        def again(session: ClientSession) -> bool:
            row = self._outbox.find_one_and_delete({"_id": row_id}, session=session)
            if row is not None:
                self._outbox.insert_one(row, session=session)
                retried = {"$set": {"retriedAt": datetime.now(UTC)}}
                self._rows.update_one({"_id": row_id}, retried, session=session)
            return row is not None

        with self._rows.database.client.start_session() as session:
            return session.with_transaction(again)

    def discard(self, ids: list[Any]) -> int:
        """Forget rows, so that they are pruned like those that were sent; return how many."""
        found = {"_id": {"$in": ids}, "partitionKey": self._partition}
        return self._rows.delete_many(found).deleted_count

    def count(self) -> int:
        """Return how many rows are in quarantine."""
        return self._rows.count_documents(self._waiting)

    def retried_since(self, since: datetime, *, at: Timestamp) -> list[Any]:
        """Return the ids of rows that were retried since, as it was at a cluster time."""
        reply = self._rows.database.command(
            {
                "find": self._rows.name,
                "filter": {"partitionKey": self._partition, "retriedAt": {"$gte": since}},
                "projection": {"_id": 1},
                "batchSize": MOST_RETRIED,
                "singleBatch": True,
                "readConcern": {"level": "snapshot", "atClusterTime": at},
            }
        )
        return [row["_id"] for row in reply["cursor"]["firstBatch"]]

    def forget_retried(self, before: datetime) -> None:
        """Let go of those that were retried before a time by which they have been relayed."""
        found = {"partitionKey": self._partition, "retriedAt": {"$lt": before}}
        self._rows.delete_many(found)

    def among(self, ids: list[Any]) -> set[Any]:
        """Return those of `ids` that are quarantined, or were and may not have been relayed yet."""
        return {row["_id"] for row in self._rows.find({"_id": {"$in": ids}}, {"_id": 1})}
