"""Pauses: that an outbox partition is not to be relayed for now, kept beside its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo import WriteConcern
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.wire import CheckpointField

if TYPE_CHECKING:
    from datetime import datetime

    from pymongo.database import Database

    from postroom.store.values import OutboxPartition

__all__ = ["Pause", "Pauses"]

READ_MS = 10_000
WRITE_MS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Who has paused an outbox partition, and when by MongoDB's clock."""

    by: str
    since: datetime | None


class Pauses:
    """Reads and writes pauses, in the checkpoint's row: no relay's own writes touch them."""

    def __init__(self, database: Database[Any]) -> None:
        self._rows = database[wire.CHECKPOINTS].with_options(
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern(w="majority", wtimeout=WRITE_MS),
        )

    def of(self, partition: OutboxPartition) -> Pause | None:
        """Return an outbox partition's pause, or None where it is to be relayed."""
        row = self._rows.find_one(
            {CheckpointField.PARTITION: partition, CheckpointField.PAUSED_BY: {"$ne": None}},
            {CheckpointField.PAUSED_BY: 1, CheckpointField.PAUSED_AT: 1},
            max_time_ms=READ_MS,
        )
        if row is None:
            return None
        by, since = row[CheckpointField.PAUSED_BY], row.get(CheckpointField.PAUSED_AT)
        return Pause(by=str(by), since=since)

    def begin(self, partition: OutboxPartition, *, by: str) -> bool | None:
        """Pause an outbox partition; say whether it was not paused, None where it has no row."""
        found = self._rows.update_one(
            {CheckpointField.PARTITION: partition, CheckpointField.PAUSED_BY: None},
            {
                "$set": {CheckpointField.PAUSED_BY: by},
                "$currentDate": {CheckpointField.PAUSED_AT: True},
            },
        )
        return found.modified_count > 0 or self._if_known(partition)

    def end(self, partition: OutboxPartition) -> bool | None:
        """Have it relayed again; say whether it was paused before, None where it has no row."""
        found = self._rows.update_one(
            {CheckpointField.PARTITION: partition, CheckpointField.PAUSED_BY: {"$ne": None}},
            {"$unset": {CheckpointField.PAUSED_BY: "", CheckpointField.PAUSED_AT: ""}},
        )
        return found.modified_count > 0 or self._if_known(partition)

    def _if_known(self, partition: OutboxPartition) -> bool | None:
        row = self._rows.find_one({CheckpointField.PARTITION: partition}, max_time_ms=READ_MS)
        return None if row is None else False
