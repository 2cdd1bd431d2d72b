"""Due rows: what the relay of an outbox partition moves out of the plan into the outbox."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from bson.codec_options import DatetimeConversion
from pymongo import ASCENDING, ReadPreference, UpdateOne, WriteConcern
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store.codec import RAW, READING
from postroom.store.due_row import EARLIEST, DueRow, Odd, read
from postroom.store.fired import note as note_fired
from postroom.store.term_session import end_transaction_of
from postroom.wire import CheckpointField, ScheduledField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bson.raw_bson import RawBSONDocument
    from pymongo.client_session import ClientSession
    from pymongo.cursor import Cursor
    from pymongo.database import Database

    from postroom.partitioning import Partitioning
    from postroom.store.values import OutboxPartition

__all__ = ["Clock", "DuePortion", "DueRows", "take_over"]

MS = 10_000
MOST_BYTES_AT_ONCE = 8 << 20
FAR_AHEAD = timedelta(days=1)
# A date that Python cannot hold is none that stops a row.
ROWS = RAW.with_options(datetime_conversion=DatetimeConversion.DATETIME_AUTO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """MongoDB's time, and when the earliest event is due that waits."""

    now: datetime
    earliest: datetime

    @property
    def seconds(self) -> float:
        """How long that is from now; not above zero where it is due."""
        return (self.earliest - self.now).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class DuePortion:
    """Some of what is due, in that order: what can be moved, and what nobody can move."""

    rows: Sequence[DueRow]
    odd: Sequence[Odd]


class DueRows:
    """The plan as one outbox partition's relay sees it: its own rows, by the server's clock.

    Which ones these are follows from how the outbox is divided now, so that a change of that
    strands none. Used by one thread.
    """

    def __init__(
        self,
        database: Database[Any],
        *,
        partitioning: Partitioning,
        partition: OutboxPartition,
        session: ClientSession | None = None,
    ) -> None:
        majority = WriteConcern("majority", wtimeout=MS)
        self._database = database
        self._plan = database.get_collection(
            wire.SCHEDULED,
            codec_options=ROWS,
            read_concern=ReadConcern("majority"),
            write_concern=majority,
        )
        self._outbox = database.get_collection(
            wire.OUTBOX, codec_options=RAW, write_concern=majority
        )
        self._partition = partition
        self._session = session
        index = partitioning.names.index(partition)
        self._base = partitioning.base
        self._mine: dict[str, Any] = {ScheduledField.PARTITION: self._base}
        if partitioning.is_divided:
            self._mine[ScheduledField.SLOT] = {"$mod": [partitioning.count, index]}

    def is_empty(self) -> bool:
        """Whether there is nothing in the plan, of any outbox; looked at without any index."""
        return self._plan.find_one({}, {ScheduledField.ID: 1}, max_time_ms=MS) is None

    def clock(self) -> Clock | None:
        """Return MongoDB's time with that of the earliest row; None where nothing waits.

        One entry of the index is read for it.
        """
        # What has no date sorts before all that is due.
        waiting = {**self._waiting(), ScheduledField.DUE_AT: {"$gte": EARLIEST}}
        shown = {ScheduledField.DUE_AT: 1, "now": "$$NOW", ScheduledField.ID: 0}
        row = self._plan.with_options(codec_options=READING).find_one(
            waiting, shown, sort=list(_order().items()), max_time_ms=MS
        )
        if row is None:
            return None
        return Clock(now=row["now"], earliest=_earliest(row[ScheduledField.DUE_AT], row["now"]))

    def due(
        self,
        now: datetime,
        *,
        limit: int,
        without: Sequence[int] = (),
        left: Sequence[Any] = (),
    ) -> DuePortion:
        """Return the rows that are due, in the order of their due moments.

        As many of the first ones as a transaction takes at once, one at least; not those of some
        slots, nor some that are to be left, by their ids.
        """
        waiting = self._waiting()
        if without:
            waiting[ScheduledField.SLOT] = {
                **waiting.get(ScheduledField.SLOT, {}),
                "$nin": list(without),
            }
        if left:
            waiting[ScheduledField.ID] = {"$nin": list(left)}
        found = self._plan.find(
            # One bound is all that an index gives once a row with a list of dates was in it.
            {**waiting, ScheduledField.DUE_AT: {"$lte": now}},
            max_time_ms=MS,
            batch_size=limit,
        )
        found = found.sort(list(_order().items())).limit(limit)
        each = [read(row, self._partition) for row in _fitting(found)]
        return DuePortion(
            rows=[row for row in each if isinstance(row, DueRow)],
            odd=[row for row in each if isinstance(row, Odd)],
        )

    def move(self, rows: Sequence[DueRow], now: datetime) -> bool:
        """Move rows into the outbox, all in one transaction; return whether that was done.

        It is not where one of them was cancelled, or put off, since it was read.

        Raises:
            pymongo.errors.PyMongoError: MongoDB refused, did not answer, or found that somebody
                else changes one of them at this very moment.
            bson.errors.BSONError: one of them has no form in BSON, or would be too large.

        """
        with contextlib.ExitStack() as stack:
            session = self._session or stack.enter_context(self._database.client.start_session())
            stack.callback(_abort, session)
            session.start_transaction(
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern("majority"),
                read_preference=ReadPreference.PRIMARY,
            )
            if not self._take(rows, now, session):
                return False
            self._outbox.insert_many([row.fired for row in rows], session=session)
            session.commit_transaction()
            return True

    def _take(self, rows: Sequence[DueRow], now: datetime, session: ClientSession) -> bool:
        """Take rows out of the plan, and note them; not where one of them is not due any more."""
        ids = {"$in": [row.row_id for row in rows]}
        still = {ScheduledField.ID: ids, ScheduledField.DUE_AT: {"$lte": now}}
        deleted = self._plan.delete_many(still, hint="_id_", session=session)
        if deleted.deleted_count != len(rows):
            return False
        note_fired(
            self._database, rows, base=self._base, partition=self._partition, session=session
        )
        return True

    def refuse(self, row: Odd) -> bool:
        """Leave a row out from now on, since it cannot be moved, until it is rescheduled.

        One without a date that counts has this one, so that it is found by that. Returns whether it
        was not left yet.

        Raises:
            pymongo.errors.WriteError: MongoDB does not take the reason.
            pymongo.errors.PyMongoError: it did not answer.

        """
        change = [_refused(row.why)]
        return self._plan.update_one(_not_left(row.which), change).modified_count > 0

    def refuse_all(self, rows: Sequence[Odd]) -> list[Odd]:
        """Leave rows out together; return those in which MongoDB does not take the reason.

        Raises:
            pymongo.errors.PyMongoError: it did not answer.

        """
        updates = [UpdateOne(_not_left(row.which), [_refused(row.why)]) for row in rows]
        try:
            self._plan.bulk_write(updates, ordered=False)
        except mongo.BulkWriteError as error:
            # A validator of the plan's, or the row is too large for it.
            failed = error.details["writeErrors"]
            if not failed:
                raise
            return [rows[each["index"]] for each in failed]
        return []

    def _waiting(self) -> dict[str, Any]:
        return {**self._mine, ScheduledField.REFUSED: None}


def take_over(database: Database[Any], partition: OutboxPartition, session: ClientSession) -> bool:
    """End the transaction that an earlier mover may have left open; say whether that was done.

    MongoDB would keep it for a minute, and all that it was to move with it. It is not done before
    the outbox partition has a checkpoint, in whose row the session is noted.

    Raises:
        pymongo.errors.PyMongoError: MongoDB refused or did not answer.

    """
    mine = session.session_id["id"]
    before = database[wire.CHECKPOINTS].find_one_and_update(
        {CheckpointField.PARTITION: partition}, {"$set": {CheckpointField.MOVER: mine}}
    )
    if before is None:
        return False
    if (last := before.get(CheckpointField.MOVER)) != mine:
        end_transaction_of(database.client, last)
    return True


def _abort(session: ClientSession) -> None:
    if session.in_transaction:
        with contextlib.suppress(mongo.PyMongoError):
            session.abort_transaction()


def _not_left(which: Mapping[str, Any]) -> dict[str, Any]:
    return {"$and": [which, {ScheduledField.REFUSED: None}]}


def _refused(why: str) -> dict[str, Any]:
    due = f"${ScheduledField.DUE_AT}"
    is_date = {"$and": [{"$eq": [{"$type": due}, "date"]}, {"$gte": [due, EARLIEST]}]}
    return {
        "$set": {
            ScheduledField.REFUSED: {"$literal": why},
            ScheduledField.DUE_AT: {"$cond": [is_date, due, "$$NOW"]},
            ScheduledField.GIVEN_DUE_AT: {"$cond": [is_date, "$$REMOVE", due]},
        }
    }


def _earliest(due_at: Any, now: datetime) -> datetime:
    """Return a due moment as it is stored: whoever writes by hand may have written several."""
    if isinstance(due_at, list):
        due_at = min((each for each in due_at if isinstance(each, datetime)), default=now)
    # A time after the year 9999 is no datetime.
    return due_at if isinstance(due_at, datetime) else now + FAR_AHEAD


def _fitting(found: Cursor[RawBSONDocument]) -> list[RawBSONDocument]:
    rows: list[RawBSONDocument] = []
    size = 0
    with found:
        for row in found:
            size += len(row.raw)
            if rows and size > MOST_BYTES_AT_ONCE:
                break
            rows.append(row)
    return rows


def _order() -> dict[str, int]:
    return {ScheduledField.DUE_AT: ASCENDING, ScheduledField.ID: ASCENDING}
