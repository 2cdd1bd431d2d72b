"""Generations: how an outbox comes to be divided anew, step by step, each as often as one likes.

The old generation is closed by a validator of the collection: MongoDB itself refuses rows that come
late. Changing it takes the collection's exclusive lock, which waits for the transactions that have
written there, and those that write there later see it, whenever they began. So all rows of the old
generation were committed before, and it is known for certain when all of them are relayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

from postroom import errors, wire
from postroom.server_codes import DUPLICATE_KEY, NAMESPACE_EXISTS
from postroom.store.partitioning_record import MAJORITY, changed, read, read_all
from postroom.wire import OutboxField, PartitioningField

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from postroom.store.partitioning_record import Commands, Record

__all__ = ["begin", "close", "let_write", "open_next", "seal"]

# So long MongoDB waits for open transactions; others that want to write meanwhile are turned away,
# and tried again as those of write conflicts are.
CLOSE_MS = 1_000
UNDER_WAY = (
    PartitioningField.NEXT,
    PartitioningField.NEXT_WRITTEN,
    PartitioningField.CLOSED_AT,
    PartitioningField.SEALED,
)


def begin(record: Record, count: int) -> Commands[Record]:
    """Note that the outbox is to have another count next; what is written there goes on.

    A change keeps its count once it has closed the current generation: what is prepared for the
    next one has its names.
    """
    where = {**_current(record), PartitioningField.CLOSED_AT: {"$exists": False}}
    update = {
        "$set": {PartitioningField.NEXT: count},
        "$setOnInsert": {PartitioningField.CLOSED: []},
    }
    try:
        yield from changed(where, update, upsert=True)
    except mongo.OperationFailure as error:
        if error.code != DUPLICATE_KEY:  # somebody else was first
            raise
    return (yield from _again(record))


def close(record: Record) -> Commands[Record]:
    """Let nothing more be written into the current generation, and note since when.

    Where no change of it is under way (any more), since somebody else has finished it, nothing is
    done.

    Raises:
        pymongo.errors.ExecutionTimeout: transactions stayed open for so long; try it again.
        OutboxError: the collection has a validator that refuses nothing.

    """
    yield from seal()
    where = {**_current(record), PartitioningField.NEXT: {"$ne": None}}
    # Its time lies behind the last row's, as it stands behind it in the oplog.
    reply = yield from changed(where, {"$set": {PartitioningField.SEALED: True}})
    at = {"$set": {PartitioningField.CLOSED_AT: reply["operationTime"]}}
    yield from changed({**where, PartitioningField.CLOSED_AT: None}, at)
    return (yield from _again(record))


def let_write(record: Record) -> Commands[Record]:
    """Let writers of the next count write into the next generation, once the current is closed."""
    yield from changed(_closed_for_next(record), {"$set": {PartitioningField.NEXT_WRITTEN: True}})
    return (yield from _again(record))


def open_next(record: Record) -> Commands[Record]:
    """Make the next generation the current one: all that was before it has to be relayed."""
    current = record.partitioning
    update = {
        "$set": {
            PartitioningField.COUNT: record.next_count,
            PartitioningField.GENERATION: current.generation + 1,
        },
        "$unset": dict.fromkeys(UNDER_WAY, ""),
        "$push": {
            PartitioningField.CLOSED: {
                PartitioningField.COUNT: current.count,
                PartitioningField.GENERATION: current.generation,
            }
        },
    }
    yield from changed(_closed_for_next(record), update)
    return (yield from _again(record))


def seal() -> Commands[None]:
    """Have the collection refuse rows of all outbox partitions that are closed.

    A validator that users have there stays in force beside it.

    Raises:
        pymongo.errors.ExecutionTimeout: transactions stayed open for too long; try it again.
        OutboxError: the collection has a validator that refuses nothing.

    """
    while True:
        options = yield from _options()
        if options is None:
            yield from _make_collection()
            continue
        # Right before: what others close meanwhile is opened by it until it is looked at again.
        names = yield from _closed_names()
        yield {
            "collMod": wire.OUTBOX,
            "validator": _validator(_theirs(options), names),
            "validationAction": "error",
            "writeConcern": MAJORITY,
            "maxTimeMS": CLOSE_MS,
        }
        # Somebody may have closed another outbox's at the same moment.
        if (yield from _closed_names()) == names:
            return


def _make_collection() -> Commands[None]:
    try:
        yield {"create": wire.OUTBOX, "writeConcern": MAJORITY}
    except mongo.OperationFailure as error:
        if error.code != NAMESPACE_EXISTS:  # somebody else was first
            raise


def _closed_names() -> Commands[frozenset[str]]:
    records = yield from read_all()
    return frozenset(name for each in records for name in each.closed_names)


def _options() -> Commands[Mapping[str, Any] | None]:
    reply = yield {"listCollections": 1, "filter": {"name": wire.OUTBOX}}
    there = reply["cursor"]["firstBatch"]
    return dict(there[0].get("options", {})) if there else None


def _theirs(options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the validator that is there without our part of it."""
    validator = options.get("validator") or {}
    if not validator or _is_ours(validator):
        return None
    refuses = options.get("validationAction", "error") == "error"
    if not refuses or options.get("validationLevel") == "off":
        raise errors.OutboxError(
            f"The collection {wire.OUTBOX} has a validator of yours that refuses nothing "
            "(validationAction or validationLevel), and the old outbox partitions have to be "
            "closed by one that does: have yours refuse, or take it away; nothing was changed"
        )
    parts = validator["$and"] if set(validator) == {"$and"} else []
    if len(parts) == 2 and _is_ours(parts[1]):
        return dict(parts[0])
    return dict(validator)


def _is_ours(part: Mapping[str, Any]) -> bool:
    condition = part.get(OutboxField.PARTITION)
    return len(part) == 1 and isinstance(condition, dict) and set(condition) == {"$nin"}


def _validator(theirs: Mapping[str, Any] | None, names: Collection[str]) -> Mapping[str, Any]:
    ours = {OutboxField.PARTITION: {"$nin": sorted(names)}}
    if not names:
        return theirs or {}
    return ours if theirs is None else {"$and": [theirs, ours]}


def _current(record: Record) -> dict[str, Any]:
    return {
        PartitioningField.ID: record.partitioning.base,
        PartitioningField.COUNT: record.partitioning.count,
        PartitioningField.GENERATION: record.partitioning.generation,
    }


def _closed_for_next(record: Record) -> dict[str, Any]:
    return {
        **_current(record),
        PartitioningField.CLOSED_AT: {"$ne": None},
        PartitioningField.NEXT: {"$eq": record.next_count, "$ne": None},
    }


def _again(record: Record) -> Commands[Record]:
    found = yield from read(record.partitioning.base)
    if found is None:
        raise errors.OutboxError(
            f"The record of the outbox {record.partitioning.base!r} in {wire.PARTITIONS} was "
            "removed meanwhile; try it again"
        )
    return found
