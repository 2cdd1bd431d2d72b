"""Newest rows: what was written into the outbox last, and what is written now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson import ObjectId, Timestamp
from pymongo import DESCENDING
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store.codec import SHOWING
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from pymongo.database import Database

__all__ = ["NewestRows", "Written"]

READ_MS = 10_000
AWAIT_MS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One event of the outbox; `data` is private, `occurred_at` what the row says."""

    row_id: Any
    partition: str
    name: str | None
    occurred_at: datetime | None
    key: Any = None
    data: Any = None


class NewestRows:
    """Reads the end of the outbox, by partition, name and key where these are given."""

    def __init__(
        self,
        database: Database[Any],
        *,
        partition: str | None,
        name: str | None,
        keys: Sequence[Any],
        key_field: str | None,
    ) -> None:
        self._rows = database.get_collection(
            wire.OUTBOX, codec_options=SHOWING, read_concern=ReadConcern("majority")
        )
        self._wanted = (partition, name, keys, key_field)

    def now(self) -> Timestamp:
        """Return MongoDB's time."""
        time: Timestamp = self._rows.database.command("ping")["operationTime"]
        return time

    def latest(self, *, limit: int) -> list[Written]:
        """Return those with the newest ids, the newest at the end."""
        found = self._rows.find(self._matching(""), max_time_ms=READ_MS)
        rows = list(found.sort(OutboxField.ID, DESCENDING).limit(limit))
        return [_written(row) for row in reversed(rows)]

    def follow(self, since: Timestamp) -> Iterator[Written | None]:
        """Yield those that are committed after a time, in that order; None while there are none."""
        pipeline = [{"$match": {"operationType": "insert", **self._matching("fullDocument.")}}]
        after = Timestamp(since.time, since.inc + 1)
        with self._rows.watch(
            pipeline, start_at_operation_time=after, max_await_time_ms=AWAIT_MS
        ) as stream:
            while stream.alive:
                change = stream.try_next()
                yield None if change is None else _written(change["fullDocument"])

    def _matching(self, prefix: str) -> dict[str, Any]:
        partition, name, keys, key_field = self._wanted
        wanted: dict[str, Any] = {}
        if partition is not None:
            wanted[f"{prefix}{OutboxField.PARTITION}"] = partition
        if name is not None:
            wanted[f"{prefix}{OutboxField.DATA}.name"] = name
        if keys:
            key = f"{prefix}{OutboxField.KEY}"
            own: dict[str, Any] = {key: {"$in": list(keys)}}
            field = f"{prefix}{OutboxField.DATA}.data.{key_field}"
            by_field = {key: None, field: {"$in": list(keys)}}
            wanted["$or"] = [own, by_field] if key_field else [own]
        return wanted


def _written(row: Mapping[str, Any]) -> Written:
    event = row.get(OutboxField.DATA)
    event = event if isinstance(event, dict) else {}
    row_id, name = row.get(OutboxField.ID), event.get("name")
    at = row.get(OutboxField.OCCURRED_AT)
    if at is None and isinstance(row_id, ObjectId):
        at = row_id.generation_time
    return Written(
        row_id=row_id,
        partition=str(row.get(OutboxField.PARTITION, "")),
        name=name if isinstance(name, str) else None,
        occurred_at=at,
        key=row.get(OutboxField.KEY),
        data=event.get("data"),
    )
