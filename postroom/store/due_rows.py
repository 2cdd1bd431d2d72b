"""Due rows: what the relay of an outbox partition moves out of the plan, and what it leaves there.

A row that was fired keeps its id in the plan for a while: a cancel that comes too late is told so,
and a scan after lost history finds the row in the outbox, whose id may be years old.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING, ReadPreference, WriteConcern
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.server_codes import UNAUTHORIZED
from postroom.store.codec import RAW, READING
from postroom.wire import CheckpointField, OutboxField, ScheduledField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bson import ObjectId
    from bson.raw_bson import RawBSONDocument
    from pymongo.client_session import ClientSession
    from pymongo.cursor import Cursor
    from pymongo.database import Database

    from postroom.partitioning import Partitioning
    from postroom.store.moment import Moment
    from postroom.store.values import OutboxPartition

__all__ = ["Clock", "DueRows", "Fired", "take_over"]

MS = 10_000
IDS_A_REPLY = 100_000
MOST_BYTES_AT_ONCE = 8 << 20
EARLIEST = datetime.min.replace(tzinfo=UTC)
# What the plan says of a row, and the outbox does not.
OF_THE_PLAN = frozenset(
    {
        ScheduledField.DUE_AT,
        ScheduledField.SLOT,
        ScheduledField.SCHEDULE,
        ScheduledField.REFUSED,
        ScheduledField.PARTITION,
    }
)
KEPT = (ScheduledField.ID, ScheduledField.PARTITION, ScheduledField.SCHEDULE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """MongoDB's time, and when the earliest event is due that waits."""

    now: datetime
    earliest: datetime

    @property
    def seconds(self) -> float:
        """How long that is from now; not above zero where it is due."""
        return (self.earliest - self.now).total_seconds()


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
            codec_options=RAW,
            read_concern=ReadConcern("majority"),
            write_concern=majority,
        )
        self._outbox = database.get_collection(
            wire.OUTBOX, codec_options=RAW, write_concern=majority
        )
        self._partition = partition
        self._session = session
        index = partitioning.names.index(partition)
        self._mine: dict[str, Any] = {ScheduledField.PARTITION: partitioning.base}
        if partitioning.is_divided:
            self._mine[ScheduledField.SLOT] = {"$mod": [partitioning.count, index]}

    def is_empty(self) -> bool:
        """Whether there is nothing in the plan, of any outbox; looked at without any index."""
        return self._plan.find_one({}, {ScheduledField.ID: 1}, max_time_ms=MS) is None

    def clock(self) -> Clock | None:
        """Return MongoDB's time with that of the earliest row; None where nothing waits.

        One entry of the index is read for it.
        """
        # What was fired has no date there.
        waiting = {**self._waiting(), ScheduledField.DUE_AT: {"$gte": EARLIEST}}
        shown = {ScheduledField.DUE_AT: 1, "now": "$$NOW", ScheduledField.ID: 0}
        row = self._plan.with_options(codec_options=READING).find_one(
            waiting, shown, sort=list(_order().items()), max_time_ms=MS
        )
        return None if row is None else Clock(now=row["now"], earliest=row[ScheduledField.DUE_AT])

    def due(
        self, now: datetime, *, limit: int, without: Sequence[int] = ()
    ) -> list[RawBSONDocument]:
        """Return the rows that are due, in the order of their due moments; not of some slots.

        As many of the first ones as a transaction takes at once, one at least.
        """
        waiting = self._waiting()
        if without:
            waiting[ScheduledField.SLOT] = {
                **waiting.get(ScheduledField.SLOT, {}),
                "$nin": list(without),
            }
        found = self._plan.find(
            {**waiting, ScheduledField.DUE_AT: {"$gte": EARLIEST, "$lte": now}},
            max_time_ms=MS,
            batch_size=limit,
        )
        return _fitting(found.sort(list(_order().items())).limit(limit))

    def move(self, rows: Sequence[RawBSONDocument], now: datetime) -> bool:
        """Move rows into the outbox, all in one transaction; return whether that was done.

        It is not where one of them was cancelled, or put off, since it was read.

        Raises:
            pymongo.errors.PyMongoError: MongoDB refused, did not answer, or found that somebody
                else changes one of them at this very moment.

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
            self._outbox.insert_many(
                [_fired(row, self._partition) for row in rows], session=session
            )
            session.commit_transaction()
            return True

    def _take(self, rows: Sequence[RawBSONDocument], now: datetime, session: ClientSession) -> bool:
        ids = {"$in": [row[ScheduledField.ID] for row in rows]}
        kept: dict[str, Any] = {field: f"${field}" for field in KEPT}
        kept |= {
            ScheduledField.FIRED_ID: f"${ScheduledField.ID}",
            ScheduledField.FIRED_AT: "$$NOW",
            ScheduledField.FIRED_INTO: {"$literal": self._partition},
        }
        found = {ScheduledField.ID: ids, ScheduledField.DUE_AT: {"$lte": now}}
        done = self._plan.update_many(found, [{"$replaceWith": kept}], hint="_id_", session=session)
        return done.modified_count == len(rows)

    def refuse(self, row: RawBSONDocument, why: str) -> None:
        """Leave a row out from now on, since MongoDB does not take it; until it is rescheduled."""
        found = {ScheduledField.ID: row[ScheduledField.ID], ScheduledField.FIRED_ID: None}
        self._plan.update_one(found, {"$set": {ScheduledField.REFUSED: why}})

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
    if (last := before.get(CheckpointField.MOVER)) not in {None, mine}:
        database.client.admin.command("killSessions", [{"id": last}])
    return True


def _abort(session: ClientSession) -> None:
    if session.in_transaction:
        with contextlib.suppress(mongo.PyMongoError):
            session.abort_transaction()


class Fired:
    """What was fired into some outbox partitions a while ago. Safe from any thread."""

    def __init__(self, database: Database[Any], partitions: Sequence[str]) -> None:
        self._rows = database.get_collection(
            wire.SCHEDULED,
            codec_options=READING,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", wtimeout=MS),
        )
        self._partitions = list(partitions)

    def since(
        self, since: datetime, moment: Moment, *, before: ObjectId | None = None
    ) -> list[ObjectId]:
        """Return the ids of what was fired since, as it was at a moment; only those before an id.

        None where the plan may not be read: who may not has fired nothing.

        Raises:
            SnapshotGone: that moment is too long ago.

        """
        command = {
            "find": self._rows.name,
            "filter": {
                **self._found({"$gte": since}),
                **({} if before is None else {ScheduledField.ID: {"$lt": before}}),
            },
            "projection": {ScheduledField.ID: 1},
            "batchSize": IDS_A_REPLY,
        }
        try:
            found = moment.find_all(command, self._rows.codec_options)
            return [row[ScheduledField.ID] for row in found]
        except mongo.OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise
            return []

    def forget(self, before: datetime) -> int:
        """Let go of what was fired before a time, since it has been relayed by then."""
        return self._rows.delete_many(self._found({"$lt": before})).deleted_count

    def _found(self, at: Mapping[str, Any]) -> dict[str, Any]:
        return {
            ScheduledField.FIRED_INTO: {"$in": self._partitions},
            ScheduledField.FIRED_AT: at,
        }


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


def _fired(row: RawBSONDocument, partition: OutboxPartition) -> dict[str, Any]:
    # Its values stay the bytes that they are, what cannot be decoded too.
    found = {name: value for name, value in row.items() if name not in OF_THE_PLAN}
    return {OutboxField.ID: found.pop(OutboxField.ID), OutboxField.PARTITION: partition, **found}


def _order() -> dict[str, int]:
    return {ScheduledField.DUE_AT: ASCENDING, ScheduledField.ID: ASCENDING}
