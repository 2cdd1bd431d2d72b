"""Partitionings: which outbox partitions are written and relayed now, asked by those who do it.

Writers and relays by another count than the others would break the order of a key without a word.
So an outbox with more than one outbox partition has a record of them, and whoever has another count
is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymongo import errors as mongo

from postroom import errors, wire
from postroom.partitioning import Partitioning
from postroom.server_codes import DOCUMENT_VALIDATION, UNAUTHORIZED
from postroom.store import generations
from postroom.store.partitioning_record import Record, found, read, read_all
from postroom.wire import CheckpointField, OutboxField

if TYPE_CHECKING:
    from postroom.store.partitioning_record import Commands

__all__ = ["is_closed", "is_refusal", "neighbours", "successor", "to_relay", "to_write"]

CHANGE = "celery -A … outbox partitions --to"


def to_write(base: str, count: int) -> Commands[Partitioning]:
    """Return where writers with that count write now.

    While a change is under way that is the next generation, for writers of its count: nothing is
    written any more into the current one. Whoever is first with more than one has it recorded.

    Raises:
        OtherPartitioning: the outbox is divided otherwise, or is being changed.

    """
    record = yield from _known(base, count)
    if record is None:
        return Partitioning(base=base)
    if record.next_count is not None:
        if record.next_is_written and record.next_count == count:
            return record.following
        raise errors.OtherPartitioning(_changing(record, record.next_count, count))
    if record.partitioning.count != count:
        raise errors.OtherPartitioning(_other(record.partitioning, count))
    return record.partitioning


def to_relay(base: str, count: int) -> Commands[Partitioning]:
    """Return which outbox partitions relays with that count serve now.

    While a change is under way these are the old ones, for relays of the old count; those of the
    new one, whose topics may be others, begin when it is done. Whoever is first with more than one
    has it recorded.

    Raises:
        OtherPartitioning: the outbox is divided otherwise.
        PartitioningUnderWay: it is being changed to that count.

    """
    record = yield from _known(base, count)
    if record is None:
        return Partitioning(base=base)
    if record.partitioning.count == count:
        return record.partitioning
    if record.next_count == count:
        raise errors.PartitioningUnderWay(
            f"The outbox {base!r} is being changed to {count} outbox partitions: they are relayed "
            f"once `{CHANGE} {count}` has found the old ones to be relayed and consumed; it is "
            "looked at again"
        )
    raise errors.OtherPartitioning(_other(record.partitioning, count))


def successor(name: str) -> Commands[Partitioning | None]:
    """Return where rows of a closed outbox partition are put again; None of one that is open.

    Raises:
        OtherPartitioning: the outbox is being changed.

    """
    try:
        records = yield from read_all()
    except mongo.OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        return None
    for record in records:
        if name in record.closed_names:
            if record.next_count is not None:
                # Its relay may be at work still, and reads rows again if it is killed.
                raise errors.OtherPartitioning(
                    f"Outbox partition {name!r} is closed, since its outbox is being changed to "
                    f"{record.next_count} outbox partitions: nothing is put again until that is "
                    "done"
                )
            return record.partitioning
    return None


def neighbours(
    name: str, *, sure: bool = False
) -> Commands[tuple[Partitioning, tuple[str, ...]] | None]:
    """Return among which outbox partitions one is now, and those of theirs that are closed.

    None of one that is closed, or is being closed. It is alone where nothing is recorded of it, or
    the record may not be read, unless that has to be `sure`.

    Raises:
        pymongo.errors.PyMongoError: MongoDB refused or did not answer.

    """
    try:
        records = yield from read_all()
    except mongo.OperationFailure as error:
        if error.code != UNAUTHORIZED or sure:
            raise
        records = []
    for record in records:
        if name in record.closed_names:
            return None
        if name in record.partitioning.names:
            return record.partitioning, tuple(sorted(record.closed_names))
    return Partitioning(base=name), ()


def is_closed(name: str) -> Commands[bool]:
    """Say whether an outbox partition is closed, or is being closed, for sure.

    Raises:
        pymongo.errors.PyMongoError: MongoDB refused or did not answer.

    """
    return (yield from neighbours(name, sure=True)) is None


def is_refusal(error: BaseException) -> bool:
    """Say whether MongoDB refused rows by the collection's validator."""
    if not isinstance(error, mongo.OperationFailure):
        return False
    refused = (error.details or {}).get("writeErrors") or ()
    return DOCUMENT_VALIDATION in {error.code, *(each.get("code") for each in refused)}


def _known(base: str, count: int) -> Commands[Record | None]:
    try:
        record = yield from read(base)
    except mongo.OperationFailure as error:
        # An outbox that is divided refuses the rows of those who may not look.
        if count > 1 or error.code != UNAUTHORIZED:
            raise
        return None
    # A process that was to divide it may have been killed meanwhile.
    if count > 1 and (record is None or record.partitioning.generation == 0):
        record = yield from _divided(base, record, count)
    return record


def _divided(base: str, record: Record | None, count: int) -> Commands[Record]:
    """Divide an outbox that nobody has used yet."""
    if record is None:
        if (yield from _is_used(base)):
            raise errors.OtherPartitioning(_other(Partitioning(base=base), count))
        nothing = Record(partitioning=Partitioning(base=base, generation=0))
        record = yield from generations.begin(nothing, count)
    if record.partitioning.generation == 0 and record.closed_at is None:
        record = yield from generations.close(record)
    if record.partitioning.generation == 0 and not (yield from _is_used(base)):
        record = yield from generations.open_next(record)
    return record


def _is_used(base: str) -> Commands[bool]:
    for collection, field in (
        (wire.CHECKPOINTS, CheckpointField.PARTITION),
        (wire.OUTBOX, OutboxField.PARTITION),
    ):
        if (yield from found(collection, {field: base}, limit=1)):
            return True
    return False


def _other(current: Partitioning, count: int) -> str:
    return (
        f"The outbox {current.base!r} has {_counted(current.count)}, and POSTROOM_PARTITIONS is "
        f"{count} here, which would break the order of keys: set it to {current.count}, or change "
        f"the outbox with `{CHANGE} {count}`; nothing is written or relayed here"
    )


def _changing(record: Record, to: int, count: int) -> str:
    what_next = (
        f"set it to {to}, with which is written already"
        if record.next_is_written
        else f"writers with {to} write as soon as `{CHANGE} {to}` says so"
    )
    return (
        f"The outbox {record.partitioning.base!r} is being changed from "
        f"{_counted(record.partitioning.count)} to {to}, and POSTROOM_PARTITIONS is {count} here: "
        f"{what_next}; nothing is written here"
    )


def _counted(count: int) -> str:
    return f"{count} outbox partition{'s' if count > 1 else ''}"
