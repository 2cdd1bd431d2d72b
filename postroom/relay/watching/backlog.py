"""The backlog: the rows of an outbox partition that are committed and not relayed yet."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pymongo
from bson import ObjectId, Timestamp
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store.codec import SHOWING
from postroom.store.server_time import in_utc
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pymongo.database import Database

    from postroom.store.checkpoints import Checkpoint
    from postroom.store.values import ResumeToken

__all__ = ["MOST_COUNTED", "Backlog", "behind", "in_collection"]

# Behind this many it matters no more how many there are.
MOST_COUNTED = 100_000
REPLY_ROWS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """How many rows wait, and since when the oldest of them does, if any was seen.

    With `at_least` the counting was cut short, or does not show all.
    """

    rows: int
    oldest: datetime | None
    at_least: bool


def behind(database: Database[Any], checkpoint: Checkpoint, *, seconds: float) -> Backlog | None:
    """Count what waits behind a checkpoint, for some seconds; None in a scan, which does not tell.

    The change stream shows it. Where the server refuses it, as after lost history, the rows with
    ids of a later second are counted, which may leave out some that were committed late.
    """
    if checkpoint.scan is not None:
        return None
    partition, token = checkpoint.partition, checkpoint.token
    if token is None:
        return in_collection(database, partition, seconds=seconds)
    with contextlib.suppress(mongo.OperationFailure):
        # Whatever the server has against the stream; what it has against reading, it says below.
        return _in_stream(database, partition, token, seconds=seconds)
    reached = checkpoint.cluster_time or token.cluster_time
    if reached is None:
        return Backlog(rows=0, oldest=None, at_least=True)
    after = ObjectId.from_datetime(datetime.fromtimestamp(reached.time + 1, UTC))
    found = in_collection(database, partition, after=after, seconds=seconds)
    return Backlog(rows=found.rows, oldest=found.oldest, at_least=True)


def in_collection(
    database: Database[Any], partition: Any, *, after: ObjectId | None = None, seconds: float
) -> Backlog:
    """Count an outbox partition's rows in the collection, for some seconds."""
    outbox = database[wire.OUTBOX].with_options(
        codec_options=SHOWING, read_concern=ReadConcern("majority")
    )
    query: dict[str, Any] = {OutboxField.PARTITION: partition}
    if after is not None:
        query[OutboxField.ID] = {"$gt": after}
    rows, oldest, at_least = 0, None, True
    try:
        with pymongo.timeout(max(seconds, 0.001)):
            first = outbox.find_one(query, {OutboxField.OCCURRED_AT: 1}, sort=[("$natural", 1)])
            rows, oldest = (0, None) if first is None else (1, written_at(first))
            rows = rows and outbox.count_documents(query, limit=MOST_COUNTED)
            at_least = rows >= MOST_COUNTED
    except mongo.PyMongoError as error:
        if not error.timeout:
            raise
    return Backlog(rows=rows, oldest=oldest, at_least=at_least)


def written_at(row: Mapping[str, Any]) -> datetime | None:
    """Return when a row says that it was written; when it was committed the row does not tell."""
    at, row_id = row.get(OutboxField.OCCURRED_AT), row.get(OutboxField.ID)
    if isinstance(at, datetime):
        return in_utc(at)
    return row_id.generation_time if isinstance(row_id, ObjectId) else None


def _in_stream(
    database: Database[Any], partition: str, token: ResumeToken, *, seconds: float
) -> Backlog:
    rows, oldest, at_least = 0, None, True
    try:
        with pymongo.timeout(max(seconds, 0.001)):
            for reply in _replies(database, partition, token):
                if reply and oldest is None:
                    oldest = _committed_at(reply[0])
                rows += len(reply)
                if rows >= MOST_COUNTED:
                    break
            else:
                at_least = False
    except mongo.PyMongoError as error:
        if not error.timeout:
            raise
    return Backlog(rows=min(rows, MOST_COUNTED), oldest=oldest, at_least=at_least)


def _replies(
    database: Database[Any], partition: str, token: ResumeToken
) -> Iterator[list[Mapping[str, Any]]]:
    """Yield what the stream has behind a token, until a reply has room left: that is its end.

    By commands: a cursor of the driver's asks once more behind an empty reply, and waits.
    """
    pipeline = [
        {"$changeStream": {"startAfter": dict(token.document)}},
        {"$match": {"operationType": "insert", f"fullDocument.{OutboxField.PARTITION}": partition}},
        {"$project": {"clusterTime": 1, "wallTime": 1}},
    ]
    first = {"aggregate": wire.OUTBOX, "pipeline": pipeline, "cursor": {"batchSize": REPLY_ROWS}}
    with database.client.start_session() as session:
        concern = {"readConcern": {"level": "majority"}}
        cursor = database.command({**first, **concern}, session=session)["cursor"]
        rows = cursor["firstBatch"]
        try:
            yield rows
            while len(rows) == REPLY_ROWS:
                more = {"getMore": cursor["id"], "collection": wire.OUTBOX, "batchSize": REPLY_ROWS}
                rows = database.command(more, session=session)["cursor"]["nextBatch"]
                yield rows
        finally:
            with contextlib.suppress(mongo.PyMongoError):
                kill = {"killCursors": wire.OUTBOX, "cursors": [cursor["id"]]}
                database.command(kill, session=session)


def _committed_at(change: Mapping[str, Any]) -> datetime:
    wall: datetime | None = change.get("wallTime")  # since MongoDB 6.0
    cluster: Timestamp = change["clusterTime"]
    return datetime.fromtimestamp(cluster.time, UTC) if wall is None else in_utc(wall)
