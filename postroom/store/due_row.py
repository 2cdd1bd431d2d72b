"""DueRow: a row of the plan as it goes into the outbox, or why it cannot."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeGuard

import bson
from bson.raw_bson import RawBSONDocument

from postroom.store.codec import RAW, READING, UNDECODABLE, id_in
from postroom.store.schedule_names import is_name
from postroom.wire import OutboxField, ScheduledField

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.store.values import OutboxPartition

__all__ = ["EARLIEST", "NO_DATE", "NO_SLOT", "DueRow", "Odd", "put_off", "read", "which"]

# Every date that counts, and nothing else, is at or behind it.
EARLIEST = datetime.min.replace(tzinfo=UTC)
NO_DATE = "Its dueAt is no date that counts"
NO_SLOT = "Its slot, which says to which outbox partition it goes, is no whole number from 0 on"

# What else the plan says of a row, and the outbox does not.
OF_THE_PLAN = (ScheduledField.REFUSED, ScheduledField.GIVEN_DUE_AT, ScheduledField.PARTITION)
# Where the value of the first field begins, which is the id in all that MongoDB has stored.
_VALUE = 4 + 1 + len(b"_id\x00")
_LENGTH = struct.Struct("<i")
_STRING, _OBJECT = 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DueRow:
    """A row that is due: `fired` is what goes into the outbox, `name` that of its schedule."""

    row_id: Any
    slot: int
    due_at: datetime
    name: str | None
    fired: Mapping[str, Any]

    @property
    def which(self) -> Mapping[str, Any]:
        """The condition for it."""
        return {ScheduledField.ID: self.row_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    """A row that nobody can move: `which` finds it, `why` is a sentence without anything of it."""

    row_id: Any
    which: Mapping[str, Any]
    why: str


def read(row: RawBSONDocument, partition: OutboxPartition) -> DueRow | Odd:
    """Read a row, whoever wrote it; its values stay the bytes that they are."""
    try:
        fields = dict(row.items())
        if isinstance(row_id := fields[ScheduledField.ID], RawBSONDocument):
            bson.decode(row_id.raw, READING)  # as whoever comes upon the row later does
    except UNDECODABLE as error:
        why = f"The row cannot be decoded ({type(error).__name__})"
        return Odd(row_id=id_in(bytes(row.raw)), which=which(row), why=why)
    slot, due_at = fields.pop(ScheduledField.SLOT, None), fields.pop(ScheduledField.DUE_AT)
    if not isinstance(due_at, datetime):
        return Odd(row_id=row_id, which=which(row), why=NO_DATE)
    if not _is_slot(slot):
        return Odd(row_id=row_id, which=which(row), why=NO_SLOT)
    name = fields.pop(ScheduledField.SCHEDULE, None)
    for field in OF_THE_PLAN:
        fields.pop(field, None)
    del fields[ScheduledField.ID]
    return DueRow(
        row_id=row_id,
        slot=int(slot),
        due_at=due_at,
        name=name if is_name(name) else None,
        fired={OutboxField.ID: row_id, OutboxField.PARTITION: partition, **fields},
    )


def put_off(due: Any) -> list[dict[str, Any]]:
    """Return the update by which a row is due at a time, an expression of MongoDB's, once more."""
    return [
        {"$set": {ScheduledField.DUE_AT: due}},
        {"$unset": [ScheduledField.REFUSED, ScheduledField.GIVEN_DUE_AT]},
    ]


def _is_slot(value: Any) -> TypeGuard[float]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value < 2**63 and value == int(value)


def which(row: RawBSONDocument) -> Mapping[str, Any]:
    """Return the condition for a row, with its id as it is stored: that may be no UTF-8."""
    raw = bytes(row.raw)
    kind = raw[4]
    if kind not in {_STRING, _OBJECT}:
        return {ScheduledField.ID: id_in(raw)}
    (size,) = _LENGTH.unpack_from(raw, _VALUE)
    field = raw[4 : _VALUE + size + (_LENGTH.size if kind == _STRING else 0)]
    return RawBSONDocument(_LENGTH.pack(_LENGTH.size + len(field) + 1) + field + b"\x00", RAW)
