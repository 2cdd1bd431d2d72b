"""The scan: rows from the collection itself, as they were at one cluster time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson import ObjectId

from postroom import errors, wire
from postroom.relay.batch import BATCH_ROWS, SLICE_ROWS, Batch
from postroom.store import codec
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from bson import Timestamp
    from pymongo.database import Database

    from postroom.store.codec import Row
    from postroom.store.values import OutboxPartition

__all__ = ["scan", "snapshot_time"]

FIRST_OBJECT_ID = ObjectId("0" * 24)


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
        yield Batch(slices=_page_slices(page), point=None)
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
