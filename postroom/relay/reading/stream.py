"""The change stream, in whole replies: what was committed after a token, in commit order."""

from __future__ import annotations

import contextlib
import itertools
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import bson
from bson import Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import errors as mongo

from postroom import errors
from postroom.pymongo_adapter import leave_rows_alone, post_batch_resume_token
from postroom.relay.reading.batch import BATCH_ROWS, SLICE_ROWS
from postroom.relay.reading.gathering import GATHERING
from postroom.store import codec
from postroom.store.values import ResumeToken
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from pymongo.collection import Collection

    from postroom.store.codec import Row
    from postroom.store.values import OutboxPartition

__all__ = ["Reply", "has_passed", "open_stream", "replies"]

# One getMore a second while idle; a reply comes at once when there is something.
AWAIT_MS = 1000
# Behind a reply with few rows the next ones gather before they are asked for. The first row after a
# silence does not wait, nor does a backlog.
FEW_ROWS = 100
NOT_NEEDED = (
    *("operationType", "clusterTime", "ns"),
    *("documentKey", "lsid", "txnNumber"),
)
# Left in for the one row of a reply of which it is told: the server cannot leave it out of the
# others only, which costs the relay 0.15 us of 15 for an event, and the server 0.3 of 11.
WALL_TIME = "wallTime"
# MongoDB: ChangeStreamHistoryLost, ChangeStreamFatalError (a token that was not found),
# InvalidResumeToken, CappedPositionLost (the oplog has rolled over a stream that was read too
# slowly), and what a mangled token gives: FailedToParse, TypeMismatch, Overflow and the
# key string's own. What the stream has lost is still in the collection.
HISTORY_LOST_CODES = frozenset({286, 280, 260, 136, 9, 14, 15, 50811})

_LENGTH = struct.Struct("<i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server had, in commit order, and the token behind it.

    `is_last` says that the collection was dropped, renamed or replaced behind these rows: the
    stream is over, and another one begins behind the token.
    """

    token: ResumeToken
    raw: bytes = b""
    starts: Sequence[int] = ()
    is_last: bool = False

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.starts)

    @property
    def committed_at(self) -> datetime | None:
        """When the first row was committed, by MongoDB's clock; None before MongoDB 6."""
        if not self.starts:
            return None
        end = self.starts[1] if len(self.starts) > 1 else len(self.raw)
        at = RawBSONDocument(self.raw[:end], codec.LENIENT).get(WALL_TIME)
        return at.replace(tzinfo=UTC) if isinstance(at, datetime) else None

    def slices(self) -> Iterator[list[Row]]:
        """Decode the rows, some at a time."""
        for start, end in itertools.pairwise([*self.starts[::SLICE_ROWS], len(self.raw)]):
            yield _rows(self.raw[start:end])

    def committed(self) -> list[tuple[Timestamp | None, Row]]:
        """Decode all rows, each with the cluster time of its commit where that can be told."""
        changes = bson.decode_all(self.raw, codec.RAW)
        times = [ResumeToken(change["_id"]).cluster_time for change in changes]
        return [
            (committed, codec.decoded(change["fullDocument"].raw))
            for committed, change in zip(times, changes, strict=True)
        ]


def _rows(raw: bytes) -> list[Any]:
    try:
        return [change["fullDocument"] for change in codec.decoded_all(raw)]
    except codec.UNDECODABLE:
        changes = bson.decode_all(raw, codec.RAW)
        return [codec.decoded(change["fullDocument"].raw) for change in changes]


def replies(
    outbox: Collection[Any],
    *,
    partition: OutboxPartition,
    token: ResumeToken,
    await_ms: int = AWAIT_MS,
    gather: Callable[[], None] = GATHERING.wait,
) -> Generator[Reply, None, None]:
    """Yield what was committed after `token`, in commit order, until the collection is replaced.

    Yields an empty reply after `await_ms` while nothing happens. Behind one with few rows `gather`
    waits for as long as the next ones are to gather.

    Raises:
        HistoryLost: the server no longer knows the token.
        pymongo.errors.PyMongoError: as the driver raises it; nothing is retried here, since a new
            term begins with the checkpoint anyway.

    """
    with (
        _history(),
        contextlib.closing(
            _cursor(outbox, partition, {"startAfter": dict(token.document)}, await_ms)
        ) as cursor,
    ):
        while cursor.alive:
            reply = _next(cursor)
            if reply is not None:
                yield reply
                if reply.is_last:
                    return
                if 0 < reply.rows < FEW_ROWS:
                    gather()
    raise errors.TermEnded("The change stream was closed by MongoDB; a new term begins")


def has_passed(reply: Reply, moment: Timestamp) -> bool:
    """Say whether the stream has shown all that was committed until a cluster time.

    Behind a reply of that very time there may be more of a transaction, unless it has no rows.
    """
    reached = reply.token.cluster_time
    if reached is None:
        return not reply.rows
    return reached > moment or (reached == moment and not reply.rows)


def open_stream(
    outbox: Collection[Any], *, partition: OutboxPartition, after: Timestamp
) -> ResumeToken:
    """Return a token behind which replies() has what was committed after a cluster time."""
    start = {"startAtOperationTime": Timestamp(after.time, after.inc + 1)}
    with (
        _history(),
        contextlib.closing(_cursor(outbox, partition, start, AWAIT_MS)) as cursor,
    ):
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


def _cursor(
    outbox: Collection[Any], partition: OutboxPartition, start: Mapping[str, Any], await_ms: int
) -> Any:
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
    cursor = outbox.aggregate_raw_batches(pipeline, batchSize=BATCH_ROWS, maxAwaitTimeMS=await_ms)
    leave_rows_alone(cursor)
    return cursor


def _next(cursor: Any) -> Reply | None:
    raw: bytes | None = cursor.try_next()
    token = post_batch_resume_token(cursor)
    if raw:
        starts = _starts(raw)
        last = raw[starts[-1] :]
        if b"fullDocument" not in last:
            # Behind an invalidate only its own token leads on, and only with startAfter.
            invalidate = ResumeToken(bson.decode(last, codec.READING)["_id"])
            raw = raw[: starts.pop()]
            return Reply(token=invalidate, raw=raw, starts=starts, is_last=True)
        if token is not None:
            return Reply(token=ResumeToken(token), raw=raw, starts=starts)
    return None if token is None else Reply(token=ResumeToken(token))


def _starts(raw: bytes) -> list[int]:
    """Return where each of the documents begins: it says its length first."""
    starts, at, size, length_at = [], 0, len(raw), _LENGTH.unpack_from
    while at < size:
        starts.append(at)
        at += length_at(raw, at)[0]
    return starts
