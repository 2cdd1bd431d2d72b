"""Search of the plan: what waits until it is due, for people to look at and change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING, WriteConcern
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store import server_time
from postroom.store.cancelling import cancel_all
from postroom.store.codec import SHOWING
from postroom.store.due_row import EARLIEST, put_off
from postroom.store.schedule_names import ScheduleNames
from postroom.wire import FiredField, OutboxField, ScheduledField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymongo.database import Database

__all__ = ["Overview", "Scheduled", "ScheduledSearch"]

MS = 15_000
MOST_COUNTED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """One event that waits, without its data; `refused` says why it stays there though it is due.

    One that was fired has `fired_at` and no more than its id and name.
    """

    row_id: Any
    outbox: str
    name: str | None = None
    schedule: str | None = None
    due_at: datetime | None = None
    refused: str | None = None
    fired_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """How many events of an outbox wait, are due and were not fired, and since when the oldest is.

    `refused` are those of the due ones that cannot go into the outbox; none of them is
    the oldest one. No count goes beyond 100,000.
    """

    outbox: str
    waiting: int
    overdue: int
    refused: int
    oldest_overdue_seconds: float


class ScheduledSearch:
    """Finds what waits in the plan, of one outbox or of all; each call is bounded."""

    def __init__(self, database: Database[Any], *, base: str | None = None) -> None:
        self._rows = database.get_collection(
            wire.SCHEDULED,
            codec_options=SHOWING,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", wtimeout=MS),
        )
        self._fired = self._rows.database.get_collection(
            wire.FIRED, codec_options=SHOWING, read_concern=ReadConcern("majority")
        )
        self._names = ScheduleNames(database)
        self._base = base

    def count(self, wanted: Mapping[str, Any]) -> int:
        """Return how many match."""
        return self._rows.count_documents(self._matching(wanted), maxTimeMS=MS)

    def some(self, wanted: Mapping[str, Any], *, skip: int, limit: int) -> list[Scheduled]:
        """Return some of those that match, in the order in which they are due."""
        found = self._rows.find(self._matching(wanted), _shown(), max_time_ms=MS)
        order = [(ScheduledField.DUE_AT, ASCENDING), (ScheduledField.ID, ASCENDING)]
        return [_scheduled(row) for row in found.sort(order).skip(skip).limit(limit)]

    def ids(self, wanted: Mapping[str, Any]) -> list[Any]:
        """Return the ids of all that match, in that order."""
        found = self._rows.find(
            self._matching(wanted), {ScheduledField.ID: 1}, max_time_ms=MS, allow_disk_use=True
        )
        return [row[ScheduledField.ID] for row in found.sort(ScheduledField.DUE_AT, ASCENDING)]

    def one(self, ids: Sequence[Any]) -> Scheduled | None:
        """Return the event with one of some ids, as it waits or once it was fired."""
        wanted = {"$in": list(ids)}
        row = self._rows.find_one({ScheduledField.ID: wanted}, _shown())
        if row is not None:
            return _scheduled(row)
        row = self._fired.find_one({FiredField.IDS: wanted})
        return None if row is None else _fired(row, ids)

    def cancel(self, ids: Sequence[Any]) -> int:
        """Delete those that still wait, and their names; return how many."""
        return cancel_all(self._rows.database, self._still(ids))

    def reschedule(self, ids: Sequence[Any], at: datetime | timedelta | None) -> int:
        """Have those that still wait be due at a time, or so long from MongoDB's now; None is now.

        Returns how many were there.
        """
        due: Any = "$$NOW" if at is None else at
        if isinstance(at, timedelta):
            due = {"$add": ["$$NOW", at // timedelta(milliseconds=1)]}
        return self._rows.update_many(self._still(ids), put_off(due)).matched_count

    def overview(self) -> list[Overview]:
        """Return what waits of each outbox; entries of an index are counted, MOST_COUNTED each."""
        now = server_time.now(self._rows.database)
        return [self._overview_of(base, now) for base in self._bases()]

    def _overview_of(self, base: str, now: datetime) -> Overview:
        mine = {ScheduledField.PARTITION: base}
        due = {**mine, ScheduledField.DUE_AT: {"$lte": now}}
        oldest = self._rows.find_one(
            {**due, ScheduledField.REFUSED: None},
            {ScheduledField.DUE_AT: 1},
            sort=[(ScheduledField.DUE_AT, ASCENDING)],
            max_time_ms=MS,
        )
        since = None if oldest is None else _time(oldest[ScheduledField.DUE_AT])
        age = 0.0 if since is None else (now - since).total_seconds()
        return Overview(
            outbox=base,
            waiting=self._counted({**mine, ScheduledField.DUE_AT: {"$gte": EARLIEST}}),
            overdue=self._counted(due),
            refused=self._counted({**due, ScheduledField.REFUSED: {"$ne": None}}),
            oldest_overdue_seconds=age,
        )

    def _counted(self, wanted: Mapping[str, Any]) -> int:
        return self._rows.count_documents(wanted, limit=MOST_COUNTED, maxTimeMS=MS)

    def _mine(self) -> dict[str, Any]:
        # Named one by one, so that all that is asked is answered by the index on what is due.
        return {ScheduledField.PARTITION: {"$in": self._bases()}}

    def _bases(self) -> list[str]:
        if self._base is not None:
            return [self._base]
        # Whatever has another name is no outbox's.
        names = self._rows.distinct(ScheduledField.PARTITION)
        return sorted(name for name in names if isinstance(name, str))

    def _matching(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        found = {**self._mine(), ScheduledField.DUE_AT: {"$gte": EARLIEST}, **wanted}
        if (name := wanted.get(ScheduledField.SCHEDULE)) is not None:
            # By its row, since no index of the plan has names.
            ids = self._names.events_of(self._bases(), name)
            found["$and"] = [{ScheduledField.ID: {"$in": ids}}]
        return found

    def _still(self, ids: Sequence[Any]) -> dict[str, Any]:
        return {ScheduledField.ID: {"$in": list(ids)}, **self._matching({})}


def _shown() -> dict[str, int]:
    fields = (
        ScheduledField.PARTITION,
        ScheduledField.SCHEDULE,
        ScheduledField.DUE_AT,
        ScheduledField.REFUSED,
        f"{OutboxField.DATA}.name",
    )
    return dict.fromkeys(fields, 1)


def _scheduled(row: Mapping[str, Any]) -> Scheduled:
    data = row.get(OutboxField.DATA)
    name = data.get("name") if isinstance(data, dict) else None
    return Scheduled(
        row_id=row[ScheduledField.ID],
        outbox=str(row.get(ScheduledField.PARTITION, "")),
        name=name if isinstance(name, str) else None,
        schedule=_text(row.get(ScheduledField.SCHEDULE)),
        due_at=_time(row.get(ScheduledField.DUE_AT)),
        refused=_text(row.get(ScheduledField.REFUSED)),
    )


def _fired(row: Mapping[str, Any], ids: Sequence[Any]) -> Scheduled:
    found = next(each for each in row[FiredField.IDS] if each in ids)
    named = (
        each[FiredField.SCHEDULE]
        for each in row.get(FiredField.NAMED, ())
        if each[FiredField.EVENT_ID] == found
    )
    return Scheduled(
        row_id=found,
        outbox=str(row.get(FiredField.PARTITION, "")),
        schedule=next(named, None),
        fired_at=_time(row.get(FiredField.AT)),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _time(value: Any) -> datetime | None:
    # By hand anything may be written, and a date after the year 9999 too.
    return value if isinstance(value, datetime) else None
