"""Firing: what is due later goes into the outbox of real MongoDB, by a clock that may be ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom.partitioning import Partitioning
from postroom.store.due_rows import DueRows
from postroom.store.values import DEFAULT_PARTITION, OutboxPartition

if TYPE_CHECKING:
    from datetime import timedelta

    from pymongo.database import Database

__all__ = ["fire_due"]

MOST_AT_ONCE = 500


def fire_due(database: Database[Any], ahead: timedelta) -> None:
    """Move what is due by MongoDB's clock and so much more, as a relay does.

    Raises:
        pymongo.errors.PyMongoError: MongoDB refused or did not answer.

    """
    partition = OutboxPartition(DEFAULT_PARTITION)
    rows = DueRows(database, partitioning=Partitioning(), partition=partition)
    clock = None if rows.is_empty() else rows.clock()
    if clock is None:
        return
    now = clock.now + ahead
    while due := rows.due(now, limit=MOST_AT_ONCE).rows:
        rows.move(due, now)
