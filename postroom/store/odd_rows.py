"""Odd rows of the plan: which no relay would ever look at, since they are not as publish() writes.

They harm nobody, and nobody would hear of them either. So they are looked for now and then, and
marked as what MongoDB refuses is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store.codec import LENIENT
from postroom.store.due_row import EARLIEST, NO_DATE, NO_SLOT, Odd, which
from postroom.wire import ScheduledField

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from pymongo.database import Database

__all__ = ["OddRows"]

MS = 1_000
MOST_AT_ONCE = 100
# Of MongoDB's whole numbers; what is above has no remainder there.
LARGEST = 2**63 - 1


class OddRows:
    """Finds the odd rows of one outbox, some at a time; each look takes a second at most."""

    def __init__(self, database: Database[Any], base: str) -> None:
        self._rows = database.get_collection(
            wire.SCHEDULED, codec_options=LENIENT, read_concern=ReadConcern("majority")
        )
        self._waiting = {ScheduledField.PARTITION: base, ScheduledField.REFUSED: None}

    def without_a_place(self, now: datetime) -> Iterator[Odd]:
        """Yield what is due, and says of no outbox partition that it goes there."""
        odd = {"$not": {"$gte": 0, "$lte": LARGEST}}
        return self._look({ScheduledField.DUE_AT: {"$lte": now}, ScheduledField.SLOT: odd}, NO_SLOT)

    def without_a_date(self) -> Iterator[Odd]:
        """Yield what will never be due, since it has no date, or something else for one."""
        return self._look({ScheduledField.DUE_AT: {"$not": {"$gte": EARLIEST}}}, NO_DATE)

    def _look(self, wanted: Mapping[str, Any], why: str) -> Iterator[Odd]:
        found = self._rows.find(
            {**self._waiting, **wanted},
            {ScheduledField.ID: 1},
            limit=MOST_AT_ONCE,
            max_time_ms=MS,
        )
        try:
            for row in found:
                yield Odd(row_id=row.get(ScheduledField.ID), which=which(row), why=why)
        except mongo.ExecutionTimeout:
            return
