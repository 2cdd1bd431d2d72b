"""Search of the quarantine: by MongoDB, with the rows themselves where a filter asks for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store.codec import SHOWING
from postroom.wire import OutboxField, QuarantineField

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from pymongo.database import Database

    from postroom.store.values import OutboxPartition

__all__ = ["FoundEntry", "QuarantineSearch", "Wanted"]

READ_MS = 15_000
ROW = "row"
NAME = f"{ROW}.{OutboxField.DATA}.name"
KEY = f"{ROW}.{OutboxField.KEY}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries are asked for; what is None or empty leaves none out.

    `reasons` all have to be found. `keys` are the forms that a row may have the key in, and
    `key_field` is the field of the data that holds it in rows without one.
    """

    ids: Sequence[Any] = ()
    reasons: Sequence[re.Pattern[str]] = ()
    topic: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    name: str | None = None
    keys: Sequence[Any] = ()
    key_field: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundEntry:
    """One entry with what its row says of itself, without its data; `gone` where there is none."""

    row_id: Any
    partition: str
    position: int | None
    reason: str
    quarantined_at: datetime | None
    topic: str | None
    name: str | None = None
    gone: bool = field(default=False)


class QuarantineSearch:
    """Finds what waits in quarantine, of one outbox partition or of all; each call is bounded."""

    def __init__(self, database: Database[Any], *, partition: OutboxPartition | None) -> None:
        majority = ReadConcern("majority")
        self._rows = database.get_collection(
            wire.QUARANTINE, codec_options=SHOWING, read_concern=majority
        )
        self._outbox = database.get_collection(
            wire.OUTBOX, codec_options=SHOWING, read_concern=majority
        )
        self._partition = partition

    def count(self, wanted: Wanted) -> int:
        """Return how many match."""
        found = self._ask([*self._matching(wanted), {"$count": "n"}])
        return next((row["n"] for row in found), 0)

    def some(self, wanted: Wanted, *, skip: int, limit: int) -> list[FoundEntry]:
        """Return some of those that match, oldest first."""
        (first, *of_rows), order = self._matching(wanted), _oldest_first()[0]["$sort"]
        if not of_rows:
            found = self._rows.find(first["$match"], max_time_ms=READ_MS, allow_disk_use=True)
            return self._with_names(list(found.sort(order).skip(skip).limit(limit)))
        stages = [first, *of_rows, {"$sort": order}, {"$skip": skip}, {"$limit": limit}]
        return [_found(row) for row in self._ask([*stages, *_with_rows()])]

    def _with_names(self, entries: list[dict[str, Any]]) -> list[FoundEntry]:
        ids = [entry[QuarantineField.ID] for entry in entries]
        rows = self._outbox.find(
            {OutboxField.ID: {"$in": ids}}, {f"{OutboxField.DATA}.name": 1}, max_time_ms=READ_MS
        )
        # Ids may be objects, which are no keys of a dictionary.
        known = {repr(row[OutboxField.ID]): [row] for row in rows}
        return [
            _found({**entry, ROW: known.get(repr(entry[QuarantineField.ID]))}) for entry in entries
        ]

    def ids(self, wanted: Wanted) -> list[tuple[str, Any]]:
        """Return the outbox partition and id of all that match, oldest first."""
        both = {QuarantineField.PARTITION: 1}
        found = self._ask([*self._matching(wanted), *_oldest_first(), {"$project": both}])
        return [(row[QuarantineField.PARTITION], row[QuarantineField.ID]) for row in found]

    def _ask(self, pipeline: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        # 100,000 rows fit into memory; what does not is sorted on the disk.
        return self._rows.aggregate(pipeline, maxTimeMS=READ_MS, allowDiskUse=True)

    def _matching(self, wanted: Wanted) -> list[dict[str, Any]]:
        waiting: dict[str, Any] = {QuarantineField.RETRIED_AT: None}
        if self._partition is not None:
            waiting[QuarantineField.PARTITION] = self._partition
        if wanted.ids:
            waiting[QuarantineField.ID] = {"$in": list(wanted.ids)}
        if wanted.topic is not None:
            waiting[QuarantineField.TOPIC] = wanted.topic
        bounds = {"$gte": wanted.since, "$lt": wanted.until}
        if given := {how: at for how, at in bounds.items() if at is not None}:
            waiting[QuarantineField.QUARANTINED_AT] = given
        if wanted.reasons:
            waiting["$and"] = [{QuarantineField.REASON: each} for each in wanted.reasons]
        return [{"$match": waiting}, *_of_rows(wanted)]


def _of_rows(wanted: Wanted) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []
    if wanted.name is not None:
        asked.append({NAME: wanted.name})
    if wanted.keys:
        own = {KEY: {"$in": list(wanted.keys)}}
        asked.append({"$or": [own, _by_field(wanted)]} if wanted.key_field else own)
    # Without a pipeline of its own a lookup is six times as fast. Its rows are let go of at once:
    # they have all of their data.
    return [{"$lookup": _lookup()}, {"$match": {"$and": asked}}, {"$unset": ROW}] if asked else []


def _by_field(wanted: Wanted) -> dict[str, Any]:
    where = f"{ROW}.{OutboxField.DATA}.data.{wanted.key_field}"
    return {KEY: None, where: {"$in": list(wanted.keys)}}


def _with_rows() -> list[dict[str, Any]]:
    return [{"$lookup": {**_lookup(), "pipeline": [{"$project": {f"{OutboxField.DATA}.name": 1}}]}}]


def _lookup() -> dict[str, Any]:
    return {
        "from": wire.OUTBOX,
        "localField": QuarantineField.ID,
        "foreignField": OutboxField.ID,
        "as": ROW,
    }


def _oldest_first() -> list[dict[str, Any]]:
    # The id decides between entries of one instant, so that pages do not overlap.
    order = {QuarantineField.QUARANTINED_AT: 1, QuarantineField.POSITION: 1, QuarantineField.ID: 1}
    return [{"$sort": order}]


def _found(row: Mapping[str, Any]) -> FoundEntry:
    rows = row.get(ROW) or []
    data = rows[0].get(OutboxField.DATA) if rows else None
    name = data.get("name") if isinstance(data, dict) else None
    return FoundEntry(
        row_id=row[QuarantineField.ID],
        partition=row.get(QuarantineField.PARTITION, ""),
        position=row.get(QuarantineField.POSITION),
        reason=row.get(QuarantineField.REASON, ""),
        quarantined_at=row.get(QuarantineField.QUARANTINED_AT),
        topic=row.get(QuarantineField.TOPIC),
        name=name if isinstance(name, str) else None,
        gone=not rows,
    )
