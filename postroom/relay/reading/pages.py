"""Pages: rows of the collection as they were at one cluster time, in the scan's order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import errors, wire
from postroom.relay.reading.batch import BATCH_ROWS, SLICE_ROWS
from postroom.store import codec
from postroom.store.moment import Moment, at_one_time
from postroom.store.order import Bound
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bson import Timestamp
    from pymongo.database import Database

    from postroom.store.codec import Row
    from postroom.store.values import OutboxPartition

__all__ = [
    "Page",
    "Pages",
    "ScanSpan",
    "first_written",
    "rows_of",
    "written_since",
]

FIRST_OBJECT_ID = ObjectId("0" * 24)
# The least value that stands behind all ObjectIds.
BEHIND_OBJECT_IDS = False
# A page that takes longer has to go through too many rows of other outbox partitions.
PAGE_MS = 5_000
# How many of those it goes through then, at most.
STRIDE_ROWS = 100_000
STRIDE_MS = 60_000
UNREADABLE_ID = (
    "The collection cannot be scanned behind a row whose id cannot be read; a new term begins"
)
NULL_ID = b"\x0a_id\x00"
IDS_A_FIND = 1000
SOME_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSpan:
    """Which rows a scan is for: an outbox partition's, from `since` on if that is given.

    By their ObjectId; or by occurredAt, where other programs gave them ids of other kinds.
    """

    partition: OutboxPartition
    since: datetime | None = None

    @property
    def first(self) -> ObjectId:
        """The least ObjectId that belongs to the scan."""
        return FIRST_OBJECT_ID if self.since is None else ObjectId.from_datetime(self.since)

    def covers(self, row: Row) -> bool:
        """Say whether a row of the outbox partition belongs to the scan."""
        row_id = codec.id_of(row)
        if isinstance(row_id, ObjectId):
            return row_id >= self.first
        if self.since is None or isinstance(row, codec.Unreadable):
            return True
        occurred_at = row.get(OutboxField.OCCURRED_AT)
        dates = occurred_at if isinstance(occurred_at, list) else [occurred_at]
        return not any(_is_before(each, self.since) for each in dates)

    def ranges_behind(self, after: Bound | None) -> list[_Range]:
        """Return what is to be looked through behind a place; ObjectIds come last."""
        # min and max ignore types, unlike $gt.
        query: dict[str, Any] = {OutboxField.PARTITION: self.partition}
        recent = dict(query)
        if self.since is not None:
            recent[OutboxField.OCCURRED_AT] = {"$not": {"$lt": self.since}}
        ranges = [
            _Range(recent, {"max": {"_id": FIRST_OBJECT_ID}}),
            _Range(recent, {"min": {"_id": BEHIND_OBJECT_IDS}}),
            _Range(query, {"min": {"_id": self.first}, "max": {"_id": BEHIND_OBJECT_IDS}}),
        ]
        if after is None:
            return ranges
        passed = 2 if after.is_object_id else int(after.covers(BEHIND_OBJECT_IDS))
        return [ranges[passed].behind(after), *ranges[passed + 1 :]]


@dataclass(frozen=True, slots=True)
class _Range:
    """A part of the index on `_id`, and what the rows there have to be like."""

    query: Mapping[str, Any]
    bounds: Mapping[str, Any]

    def behind(self, after: Bound) -> _Range:
        # Whether the row at that place is still there or not: skipping one could skip another.
        query = {**self.query, "_id": {"$ne": after.row_id}}
        return _Range(query, {**self.bounds, "min": {"_id": after.row_id}})

    def until(self, end: Any) -> _Range:
        return _Range(self.query, {**self.bounds, "max": {"_id": end}})


def _is_before(value: object, since: datetime) -> bool:
    if isinstance(value, DatetimeMS):
        return int(value) < since.timestamp() * 1000
    return isinstance(value, datetime) and value.replace(tzinfo=UTC) < since


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some rows as they were at cluster time `at`; all up to `reached` were looked at.

    There may be none of the outbox partition's among them; behind the last page there are none.
    """

    at: Timestamp
    documents: Sequence[bytes]
    reached: Bound | None
    is_last: bool = False

    def slices(self) -> Iterator[list[Row]]:
        """Decode the rows, some at a time."""
        for start in range(0, len(self.documents), SLICE_ROWS):
            yield [codec.decoded(row) for row in self.documents[start : start + SLICE_ROWS]]


class Pages:
    """Reads a span of the collection. One find a page: no cursor has to outlive a failover."""

    def __init__(self, database: Database[Any], span: ScanSpan) -> None:
        self._database = database
        self._span = span
        self._strides = False

    def read(self, *, at: Timestamp | None, after: Bound | None) -> Page:
        """Return the next page behind a place, at a time or else as it is now.

        Raises:
            SnapshotGone: that time is too long ago.
            TermEnded: a row's id cannot be read, so that nothing can go on behind it.

        """
        if at is None:
            return at_one_time(self._database, lambda moment: self._read(moment, after))
        return self._read(Moment(self._database, at), after)

    def _read(self, moment: Moment, after: Bound | None) -> Page:
        for each in self._span.ranges_behind(after):
            page = self._next_of(each, moment)
            if page.documents or page.reached is not None:
                return page
        return Page(at=moment.time, documents=(), reached=after, is_last=True)

    def _next_of(self, part: _Range, moment: Moment) -> Page:
        if not self._strides:
            try:
                return self._page(part, moment, PAGE_MS)
            except mongo.ExecutionTimeout:
                # Rows of other outbox partitions, by the hundred thousand.
                self._strides = True
        ids = self._find(part, moment, STRIDE_MS, ids_only=True)
        if len(ids) < 2:
            return self._page(part, moment, STRIDE_MS)
        last, behind = map(_readable_id, ids)
        page = self._page(part.until(behind), moment, STRIDE_MS)
        return page if page.documents else Page(at=page.at, documents=(), reached=Bound(last))

    def _page(self, part: _Range, moment: Moment, milliseconds: int) -> Page:
        documents = self._find(part, moment, milliseconds, ids_only=False)
        reached = Bound(_readable_id(documents[-1])) if documents else None
        if reached is not None and {"_id": reached.row_id} == part.bounds.get("min"):
            raise errors.TermEnded(UNREADABLE_ID)
        return Page(at=moment.time, documents=documents, reached=reached)

    def _find(
        self, part: _Range, moment: Moment, milliseconds: int, *, ids_only: bool
    ) -> list[bytes]:
        # At a stride's end two ids are asked for: its last one, and the one behind it.
        what: dict[str, Any] = (
            {"projection": {"_id": 1}, "skip": STRIDE_ROWS, "limit": 2}
            if ids_only
            else {"filter": part.query, "limit": BATCH_ROWS}
        )
        command = {
            "find": wire.OUTBOX,
            **what,
            **part.bounds,
            "hint": {"_id": 1},
            "sort": {"_id": 1},
            "batchSize": BATCH_ROWS,
            "maxTimeMS": milliseconds,
        }
        return moment.find(command)


def _readable_id(document: bytes) -> Any:
    row_id = codec.id_in(document)
    if row_id is None and not document.startswith(NULL_ID, 4):
        raise errors.TermEnded(UNREADABLE_ID)
    return row_id


def rows_of(
    database: Database[Any], span: ScanSpan, ids: Sequence[Any], *, after: Timestamp
) -> Iterator[list[Row]]:
    """Yield the outbox partition's rows of these ids as they are after a time, some at a time.

    In the order of the ids, but for rows that are so large that they come in several parts.
    """
    for start in range(0, len(ids), IDS_A_FIND):
        some_ids = list(ids[start : start + IDS_A_FIND])
        command = {
            "find": wire.OUTBOX,
            "filter": {
                "_id": {"$in": some_ids},
                OutboxField.PARTITION: span.partition,
            },
            "batchSize": IDS_A_FIND,
            "readConcern": {"level": "majority", "afterClusterTime": after},
        }
        found = database.cursor_command(command, codec_options=codec.RAW)
        # Ids may be objects, which are no keys of a dictionary.
        places = {repr(row_id): place for place, row_id in enumerate(some_ids)}
        for some in _some_at_a_time(bytes(document.raw) for document in found):
            yield sorted(some, key=lambda row: places.get(repr(codec.id_of(row)), 0))


def _some_at_a_time(documents: Iterable[bytes]) -> Iterator[list[Row]]:
    """Decode rows, so many that they are no more than a reply of the server and one row."""
    rows, size = [], 0
    for document in documents:
        rows.append(codec.decoded(document))
        size += len(document)
        if size > SOME_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def written_since(database: Database[Any]) -> datetime | None:
    """Return when the oldest row was written by its ObjectId, or None where ids of other kinds are.

    An empty collection's is now.
    """
    outbox = database[wire.OUTBOX].with_options(
        codec_options=codec.SHOWING, read_concern=ReadConcern("majority")
    )
    first = outbox.find_one({}, {"_id": 1}, sort=[("_id", 1)], max_time_ms=PAGE_MS)
    last = outbox.find_one({}, {"_id": 1}, sort=[("_id", -1)], max_time_ms=PAGE_MS)
    if first is None or last is None:
        return datetime.now(UTC)
    both = (first["_id"], last["_id"])
    if not all(isinstance(each, ObjectId) for each in both):
        return None
    written: datetime = first["_id"].generation_time
    return written


def first_written(database: Database[Any], partition: OutboxPartition) -> datetime | None:
    """Return when an outbox partition's oldest row was written, as written_since() does.

    Rows of others are gone through by their ids, however many there are.

    Raises:
        SnapshotGone: the collection was made, or changed, just now.

    """
    pages, after = Pages(database, ScanSpan(partition=partition)), None
    while True:
        page = pages.read(at=None, after=after)
        if page.documents:
            first = codec.id_in(page.documents[0])
            return first.generation_time if isinstance(first, ObjectId) else None
        if page.is_last:
            return datetime.now(UTC)
        after = page.reached
