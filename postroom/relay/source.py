"""Where a term's rows come from: the change stream, or the collection itself in a snapshot.

Both yield batches in the order in which events are to be sent. A batch is what one reply of the
server held; its token is where the stream goes on after it.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bson
from bson import CodecOptions, ObjectId, Timestamp
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import errors as mongo

from postroom import errors, wire
from postroom.pymongo_adapter import post_batch_resume_token

if TYPE_CHECKING:
    from datetime import datetime

    from pymongo.collection import Collection
    from pymongo.database import Database

__all__ = [
    "Batch",
    "Row",
    "Unreadable",
    "find",
    "id_of",
    "open_stream",
    "scan",
    "snapshot_time",
    "stream",
    "time_of",
]

# Larger replies cost less a row; the server ends one at 16 MiB anyway.
BATCH_ROWS = 2000
# A slice's rows, letters and messages stay in the processor's cache from decoding to sending, which
# is more than twice as fast as taking all rows of a reply through one step after the other.
SLICE_ROWS = 64
# One getMore a second while idle; a reply comes at once when there is something.
AWAIT_MS = 1000
# Behind a reply with few rows the next ones gather before they are asked for: at a thousand a
# second a third less work for the relay, a fifth less for server and broker, and on a busy machine
# that is what events wait for. The first row after a silence does not wait, nor does a backlog.
FEW_ROWS = 100
GATHER_SECONDS = 0.002
NOT_NEEDED = (
    *("operationType", "clusterTime", "wallTime"),
    *("ns", "documentKey", "lsid", "txnNumber"),
)
# MongoDB: ChangeStreamHistoryLost, ChangeStreamFatalError (a token that was not found),
# InvalidResumeToken, and what a mangled token gives: FailedToParse, TypeMismatch, Overflow and the
# key string's own. What the stream has lost is still in the collection.
HISTORY_LOST_CODES = frozenset({286, 280, 260, 9, 14, 15, 50811})

# Dates that Python cannot hold and strings that are no UTF-8 must not break a whole batch.
_OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    uuid_representation=UuidRepresentation.STANDARD,
)
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_LENIENT: CodecOptions[RawBSONDocument] = CodecOptions(
    document_class=RawBSONDocument,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
)
UNDECODABLE = (BSONError, UnicodeDecodeError, ValueError)
FIRST_OBJECT_ID = ObjectId("0" * 24)
_LENGTH = struct.Struct("<i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A row that cannot be decoded; its id where that much could be read."""

    row_id: Any
    reason: str


Row = Mapping[str, Any] | Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows in order, and the token from which the stream goes on after them.

    `slices` are decoded one after the other, when they are asked for, and once; `rows` counts the
    rows of a batch of the stream. A batch of a scan has no token: nothing can go on from its
    middle.
    """

    slices: Iterable[Sequence[Row]] = ()
    token: Mapping[str, Any] | None
    rows: int = 0

    @property
    def cluster_time(self) -> Timestamp | None:
        """The cluster time up to which the stream has been read, if the token tells."""
        return None if self.token is None else time_of(self.token)


def time_of(token: Mapping[str, Any]) -> Timestamp | None:
    """Read the cluster time out of a resume token.

    Tokens are opaque by contract; in every server so far they begin with a type byte 0x82 and the
    timestamp. It serves lag, pruning and the margin of a scan, never where to go on.
    """
    data = token.get("_data")
    if not isinstance(data, str) or len(data) < 18 or not data.startswith("82"):
        return None
    with contextlib.suppress(ValueError):
        return Timestamp(int(data[2:10], 16), int(data[10:18], 16))
    return None


def stream(outbox: Collection[Any], *, partition: str, token: Mapping[str, Any]) -> Iterator[Batch]:
    """Yield what was committed after `token`, in commit order, for ever.

    Yields an empty batch about once a second while nothing happens. When the collection was
    dropped or renamed the stream goes on behind that.

    Raises:
        HistoryLost: the server no longer knows the token.
        pymongo.errors.PyMongoError: as the driver raises it; nothing is retried here, since a new
            term begins with the checkpoint anyway.

    """
    with _history():
        while True:
            cursor = _cursor(outbox, partition, {"startAfter": token})
            with contextlib.closing(cursor):
                while cursor.alive:
                    batch = _next(cursor)
                    if batch.token is not None:
                        token = batch.token
                        yield batch
                    if 0 < batch.rows < FEW_ROWS:
                        time.sleep(GATHER_SECONDS)


def open_stream(outbox: Collection[Any], *, partition: str, after: Timestamp) -> Mapping[str, Any]:
    """Return a token from which stream() yields what was committed after cluster time `after`."""
    start = {"startAtOperationTime": Timestamp(after.time, after.inc + 1)}
    with _history(), contextlib.closing(_cursor(outbox, partition, start)) as cursor:
        token = post_batch_resume_token(cursor)
    if token is None:
        raise errors.HistoryLost("MongoDB gave no resume token for a new stream; tried again")
    return dict(token)


@contextlib.contextmanager
def _history() -> Iterator[None]:
    try:
        yield
    except mongo.OperationFailure as error:
        if error.code not in HISTORY_LOST_CODES:
            raise
        raise errors.HistoryLost(
            f"The change stream no longer reaches back to the checkpoint (MongoDB error "
            f"{error.code}); the collection is scanned for what was not sent"
        ) from error


def _cursor(outbox: Collection[Any], partition: str, start: Mapping[str, Any]) -> Any:
    # Whole replies are taken raw: half the cost of ChangeStream's event at a time, and a row that
    # cannot be decoded does not take its batch along. The driver's own resuming is not wanted.
    pipeline: list[dict[str, Any]] = [
        {"$changeStream": dict(start)},
        {
            "$match": {
                "$or": [
                    {"operationType": "insert", "fullDocument.partitionKey": partition},
                    {"operationType": "invalidate"},
                ]
            }
        },
        # Leaving fields out is cheaper for the server than naming those that stay, and each one
        # that is left out is a tenth of what decoding a row costs here.
        {"$project": dict.fromkeys(NOT_NEEDED, 0)},
    ]
    return outbox.aggregate_raw_batches(pipeline, batchSize=BATCH_ROWS, maxAwaitTimeMS=AWAIT_MS)


def _next(cursor: Any) -> Batch:
    raw: bytes | None = cursor.try_next()
    token = post_batch_resume_token(cursor)
    if not raw:
        return Batch(token=token)
    starts = _starts(raw)
    last = raw[starts[-1] :]
    if b"fullDocument" not in last:
        # Behind an invalidate only its own token leads on, and only with startAfter.
        raw, token = raw[: starts.pop()], bson.decode(last, _OPTIONS)["_id"]
    return Batch(slices=_slices(raw, starts), token=token, rows=len(starts))


def _starts(raw: bytes) -> list[int]:
    """Return where each of the documents begins: it says its length first."""
    starts, at, size, length_at = [], 0, len(raw), _LENGTH.unpack_from
    while at < size:
        starts.append(at)
        at += length_at(raw, at)[0]
    return starts


def _slices(raw: bytes, starts: Sequence[int]) -> Iterator[list[Row]]:
    for start, end in itertools.pairwise([*starts[::SLICE_ROWS], len(raw)]):
        yield _rows(raw[start:end])


def _rows(raw: bytes) -> list[Any]:
    try:
        return [change["fullDocument"] for change in bson.decode_all(raw, _OPTIONS)]
    except UNDECODABLE:
        changes = bson.decode_all(raw, _RAW)
        return [_decoded(change["fullDocument"].raw) for change in changes]


def _decoded(document: bytes) -> Row:
    try:
        return bson.decode(document, _OPTIONS)
    except UNDECODABLE as error:
        reason = f"The row cannot be decoded ({type(error).__name__})"
        return Unreadable(row_id=_id_in(document), reason=reason)


def _id_in(document: bytes) -> Any:
    # Field by field: what cannot be decoded is another one.
    try:
        return RawBSONDocument(document, _LENIENT).get("_id")
    except UNDECODABLE:
        return None


def snapshot_time(database: Database[Any]) -> Timestamp:
    """Ask for a cluster time at which the outbox can be read as it was."""
    reply = database.command(
        {
            "find": wire.OUTBOX,
            "filter": {},
            "batchSize": 0,
            "limit": 1,
            "singleBatch": True,
            "readConcern": {"level": "snapshot"},
        }
    )
    time: Timestamp = reply["cursor"]["atClusterTime"]
    return time


def scan(
    database: Database[Any],
    *,
    partition: str,
    at: Timestamp,
    since: datetime | None,
    retried: Sequence[Any] = (),
) -> Iterator[Batch]:
    """Yield the partition's rows as they were at cluster time `at`, in the order of their ids.

    Rows from before `since` are left out: by their ObjectId, or by occurredAt where other programs
    gave them ids of other kinds; but for those in `retried`, which come last. One find a page: no
    cursor has to outlive a failover, and MongoDB keeps the snapshot for five minutes (fewer than
    that are needed for some millions of rows; later the term ends and a new scan leaves out what
    was sent).
    """
    if since is None:
        yield from _pages(database, partition, at, {})
        return
    # min and max ignore types, unlike $gt. Strings, numbers and binary sort before all ObjectIds.
    recent = {"occurredAt": {"$not": {"$lt": since}}}
    yield from _pages(database, partition, at, {"max": {"_id": FIRST_OBJECT_ID}}, recent)
    first = ObjectId.from_datetime(since)
    yield from _pages(database, partition, at, {"min": {"_id": first}})
    if retried:
        left_out = [
            {"_id": {"$lt": first}},
            {"_id": {"$not": {"$type": "objectId"}}, "occurredAt": {"$lt": since}},
        ]
        yield from _pages(
            database, partition, at, {}, {"_id": {"$in": list(retried)}, "$or": left_out}
        )


def _pages(
    database: Database[Any],
    partition: str,
    at: Timestamp,
    bounds: Mapping[str, Any],
    condition: Mapping[str, Any] | None = None,
) -> Iterator[Batch]:
    query = {"partitionKey": partition, **(condition or {})}
    after: Any = None
    while page := _page(database, query, at, bounds):
        yield Batch(slices=_page_slices(page), token=None)
        last = _id_in(page[-1])
        if last is None or last == after:
            raise errors.TermEnded(
                "The collection cannot be scanned behind a row whose id cannot be read; a new term "
                "begins"
            )
        after, bounds = last, {**bounds, "min": {"_id": last}, "skip": 1}


def _page_slices(page: Sequence[bytes]) -> Iterator[list[Row]]:
    # A function of its own: it keeps its page while the reader goes on to the next one.
    for start in range(0, len(page), SLICE_ROWS):
        yield [_decoded(row) for row in page[start : start + SLICE_ROWS]]


def _page(
    database: Database[Any], query: Mapping[str, Any], at: Timestamp, bounds: Mapping[str, Any]
) -> list[bytes]:
    command = {
        "find": wire.OUTBOX,
        "filter": query,
        "hint": {"_id": 1},
        "sort": {"_id": 1},
        **bounds,
        "limit": BATCH_ROWS,
        "batchSize": BATCH_ROWS,
        "singleBatch": True,
        "readConcern": {"level": "snapshot", "atClusterTime": at},
    }
    reply = database.command(command, codec_options=_RAW)
    return [bytes(document.raw) for document in reply["cursor"]["firstBatch"]]


def find(outbox: Collection[Any], row_id: Any) -> Row | None:
    """Return a row as it is now, or None if it is gone."""
    found = outbox.with_options(codec_options=_RAW).find_one({"_id": row_id})
    return None if found is None else _decoded(bytes(found.raw))


def id_of(row: Row) -> Any:
    """Return the row's id, or None where it cannot be read."""
    return row.row_id if isinstance(row, Unreadable) else row["_id"]
