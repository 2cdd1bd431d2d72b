"""The change stream, in whole replies: what was committed after a token, in commit order."""

from __future__ import annotations

import contextlib
import itertools
import struct
import time
from typing import TYPE_CHECKING, Any

import bson
from bson import Timestamp
from pymongo import errors as mongo

from postroom import errors
from postroom.pymongo_adapter import post_batch_resume_token
from postroom.relay.batch import BATCH_ROWS, SLICE_ROWS, Batch
from postroom.store import codec
from postroom.store.checkpoints import Point
from postroom.store.values import ResumeToken
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pymongo.collection import Collection

    from postroom.store.codec import Row
    from postroom.store.values import OutboxPartition

__all__ = ["open_stream", "stream"]

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

_LENGTH = struct.Struct("<i")


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
                    if batch.point is not None:
                        token = batch.point.token
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
    token = post_batch_resume_token(cursor)
    if not raw:
        return Batch(point=_point(token))
    starts = _starts(raw)
    last = raw[starts[-1] :]
    if b"fullDocument" not in last:
        # Behind an invalidate only its own token leads on, and only with startAfter.
        raw, token = raw[: starts.pop()], bson.decode(last, codec.READING)["_id"]
    return Batch(slices=_slices(raw, starts), point=_point(token), rows=len(starts))


def _point(token: Mapping[str, Any] | None) -> Point | None:
    return None if token is None else Point(token=ResumeToken(token))


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
