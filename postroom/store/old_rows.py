"""Old rows: those of an outbox partition that occurred within a time, in the order of their ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bson import ObjectId
from pymongo import ASCENDING
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store.codec import RAW, Row, decoded
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

__all__ = ["OldRows"]

COUNT_MS = 60_000
# An id is made by the writer's clock, `occurredAt` may be the application's own.
SKEW = timedelta(days=1)


class OldRows:
    """Finds rows by what they say of when they occurred, and by the time in their ids."""

    def __init__(
        self,
        database: Database[Any],
        *,
        partition: str,
        since: datetime,
        until: datetime,
        name: str | None,
    ) -> None:
        self._rows = database[wire.OUTBOX].with_options(
            codec_options=RAW, read_concern=ReadConcern("majority")
        )
        between = {"$gte": since, "$lt": until}
        made = {"$gte": _id_at(since - SKEW), "$lt": _id_at(until + SKEW)}
        self._wanted: dict[str, Any] = {
            OutboxField.PARTITION: partition,
            OutboxField.OCCURRED_AT: between,
            # The index on ids finds those of the time; ids of other kinds tell none.
            "$or": [
                {OutboxField.ID: made},
                {OutboxField.ID: {"$not": {"$type": "objectId"}}},
            ],
        }
        if name is not None:
            self._wanted[f"{OutboxField.DATA}.name"] = name

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows, decoded as the relay does."""
        with self._rows.find(self._wanted).sort(OutboxField.ID, ASCENDING) as found:
            for row in found:
                yield decoded(bytes(row.raw))

    def earliest(self, *, behind: Any = None) -> datetime | None:
        """Return when the earliest row occurred of those that follow an id, or of all.

        Their order is not that of the times: one behind may have occurred before it.
        """
        left = {"$expr": {"$gt": [f"${OutboxField.ID}", {"$literal": behind}]}}
        wanted = {"$and": [self._wanted, *([left] if behind is not None else [])]}
        found = self._rows.find(wanted, [OutboxField.OCCURRED_AT], max_time_ms=COUNT_MS)
        for row in found.sort(OutboxField.OCCURRED_AT, ASCENDING).limit(1):
            at: datetime = row[OutboxField.OCCURRED_AT]
            return at.replace(tzinfo=UTC)
        return None

    def count(self) -> int:
        """Return how many there are."""
        return self._rows.count_documents(self._wanted, maxTimeMS=COUNT_MS)


def _id_at(at: datetime) -> ObjectId:
    # An ObjectId's time is 32 bits of seconds since 1970.
    earliest, latest = 0, 2**32 - 1
    seconds = min(max(int(at.timestamp()), earliest), latest)
    return ObjectId(seconds.to_bytes(4, "big") + bytes(8))
