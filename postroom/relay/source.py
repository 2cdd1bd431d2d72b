"""Where a term's rows come from: the change stream, or the collection itself in a snapshot.

Both yield batches in the order in which events are to be sent. A batch is what one reply of the
server held; its token is where the stream goes on after it.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bson
from bson import ObjectId, Timestamp
from pymongo import errors as mongo

from postroom import errors, wire
from postroom.pymongo_adapter import post_batch_resume_token
from postroom.store import codec
from postroom.store.values import ResumeToken
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from pymongo.collection import Collection
    from pymongo.database import Database

    from postroom.store.codec import Row
    from postroom.store.values import OutboxPartition

__all__ = [
    "Batch",
    "open_stream",
    "scan",
    "snapshot_time",
    "stream",
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

FIRST_OBJECT_ID = ObjectId("0" * 24)
_LENGTH = struct.Struct("<i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows in order, and the token from which the stream goes on after them.

    `slices` are decoded one after the other, when they are asked for, and once; `rows` counts the
    rows of a batch of the stream. A batch of a scan has no token: nothing can go on from its
    middle.
    """

    slices: Iterable[Sequence[Row]] = ()
    token: ResumeToken | None
    rows: int = 0

    @property
    def cluster_time(self) -> Timestamp | None:
        """The cluster time up to which the stream has been read, if the token tells."""
        return None if self.token is None else self.token.cluster_time


def stream(
    outbox: Collection[Any], *, partition: OutboxPartition, token: ResumeToken
) -> Iterator[Batch]:
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
            cursor = _cursor(outbox, partition, {"startAfter": dict(token.document)})
            with contextlib.closing(cursor):
                while cursor.alive:
                    batch = _next(cursor)
                    if batch.token is not None:
                        token = batch.token
                        yield batch
                    if 0 < batch.rows < FEW_ROWS:
                        time.sleep(GATHER_SECONDS)


def open_stream(
    outbox: Collection[Any], *, partition: OutboxPartition, after: Timestamp
) -> ResumeToken:
    """Return a token from which stream() yields what was committed after cluster time `after`."""
    start = {"startAtOperationTime": Timestamp(after.time, after.inc + 1)}
    with _history(), contextlib.closing(_cursor(outbox, partition, start)) as cursor:
        token = post_batch_resume_token(cursor)
    if token is None:
        raise errors.HistoryLost("MongoDB gave no resume token for a new stream; tried again")
    return ResumeToken(token)


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


def _cursor(outbox: Collection[Any], partition: OutboxPartition, start: Mapping[str, Any]) -> Any:
    # Whole replies are taken raw: half the cost of ChangeStream's event at a time, and a row that
    # cannot be decoded does not take its batch along. The driver's own resuming is not wanted.
    pipeline: list[dict[str, Any]] = [
        {"$changeStream": dict(start)},
        {
            "$match": {
                "$or": [
                    {"operationType": "insert", f"fullDocument.{OutboxField.PARTITION}": partition},
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
    found = post_batch_resume_token(cursor)
    token = None if found is None else ResumeToken(found)
    if not raw:
        return Batch(token=token)
    starts = _starts(raw)
    last = raw[starts[-1] :]
    if b"fullDocument" not in last:
        # Behind an invalidate only its own token leads on, and only with startAfter.
        raw, token = raw[: starts.pop()], ResumeToken(bson.decode(last, codec.READING)["_id"])
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
        return [change["fullDocument"] for change in codec.decoded_all(raw)]
    except codec.UNDECODABLE:
        changes = bson.decode_all(raw, codec.RAW)
        return [codec.decoded(change["fullDocument"].raw) for change in changes]


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
    partition: OutboxPartition,
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
    recent = {OutboxField.OCCURRED_AT: {"$not": {"$lt": since}}}
    yield from _pages(database, partition, at, {"max": {"_id": FIRST_OBJECT_ID}}, recent)
    first = ObjectId.from_datetime(since)
    yield from _pages(database, partition, at, {"min": {"_id": first}})
    if retried:
        left_out = [
            {"_id": {"$lt": first}},
            {"_id": {"$not": {"$type": "objectId"}}, OutboxField.OCCURRED_AT: {"$lt": since}},
        ]
        yield from _pages(
            database, partition, at, {}, {"_id": {"$in": list(retried)}, "$or": left_out}
        )


def _pages(
    database: Database[Any],
    partition: OutboxPartition,
    at: Timestamp,
    bounds: Mapping[str, Any],
    condition: Mapping[str, Any] | None = None,
) -> Iterator[Batch]:
    query = {OutboxField.PARTITION: partition, **(condition or {})}
    after: Any = None
    while page := _page(database, query, at, bounds):
        yield Batch(slices=_page_slices(page), token=None)
        last = codec.id_in(page[-1])
        if last is None or last == after:
            raise errors.TermEnded(
                "The collection cannot be scanned behind a row whose id cannot be read; a new term "
                "begins"
            )
        after, bounds = last, {**bounds, "min": {"_id": last}, "skip": 1}


def _page_slices(page: Sequence[bytes]) -> Iterator[list[Row]]:
    # A function of its own: it keeps its page while the reader goes on to the next one.
    for start in range(0, len(page), SLICE_ROWS):
        yield [codec.decoded(row) for row in page[start : start + SLICE_ROWS]]


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
    reply = database.command(command, codec_options=codec.RAW)
    return [bytes(document.raw) for document in reply["cursor"]["firstBatch"]]
