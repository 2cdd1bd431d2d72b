"""The quarantine: rows that can never be sent, kept by id with the reason, so the rest flows on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo import UpdateOne

from postroom import wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pymongo.database import Database

__all__ = ["Quarantine", "Quarantined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """One row that can never be sent, its number in the partition, and why."""

    row_id: Any
    position: int
    reason: str


class Quarantine:
    """Stores quarantined rows' ids; the rows stay in the outbox and are never pruned."""

    def __init__(self, database: Database[Any], *, partition: str) -> None:
        self._rows = database[wire.QUARANTINE]
        self._partition = partition

    def store(self, rows: Iterable[Quarantined]) -> None:
        """Store them; the same row stored twice, as a replay does, is one entry."""
        now = datetime.now(UTC)
        self._rows.bulk_write(
            [
                UpdateOne(
                    {"_id": row.row_id},
                    {
                        "$set": {"reason": row.reason, "position": row.position},
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

    def among(self, ids: list[Any]) -> set[Any]:
        """Return those of `ids` that are quarantined."""
        return {row["_id"] for row in self._rows.find({"_id": {"$in": ids}}, {"_id": 1})}
