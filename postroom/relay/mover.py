"""The mover: what is due goes from the plan into the outbox, where the relay meets it as any row.

Beside the relay's term, in a thread of its own, so that nothing of it is in the relay's loop. It
sleeps until the earliest event is due, for LOOK_SECONDS at most: an earlier one may come. A change
stream would have MongoDB pass every write of the database by one more reader; a look reads one
entry of an index.

Two movers of one outbox partition, as when a frozen relay wakes up, harm nothing: both read the
earliest rows, and MongoDB's write conflict lets one of them have each.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from bson.errors import BSONError
from pymongo import errors as mongo

from postroom import private_text, tracing, wire
from postroom.doubling import Doubling
from postroom.relay import facts
from postroom.relay.housekeeping import Housekeeping
from postroom.relay.left_rows import LeftRows
from postroom.reminders import Reminders
from postroom.server_codes import DUPLICATE_KEY, UNAUTHORIZED
from postroom.store import plan_indexes
from postroom.store.due_row import Odd
from postroom.store.due_rows import Clock, DueRows, take_over
from postroom.store.fired import Fired
from postroom.store.partitioning_record import run
from postroom.store.partitionings import is_closed, is_refusal, neighbours

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from postroom.store.due_row import DueRow
    from postroom.store.values import OutboxPartition

__all__ = ["Mover"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
# A divided outbox's look passes by the rows of its other parts: at most a twentieth of the time.
LOOK_SHARE = 20
# As a chunk takes. What is left open then, or by a kill, the next mover ends.
STOP_SECONDS = 2.0
# Of an outbox that is being divided anew, and of one in which this one is closed.
CLOSED_SECONDS = 1.0
MOST_AT_ONCE = 1000
# What comes meanwhile, and is due earlier than these, waits for no more than that.
CHUNKS_A_LOOK = 10
MOST_CONTESTED = 100
CONTESTED_SECONDS = 0.05
CONTESTED_AT_MOST_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 10.0
# What lacks a right will not have it in a minute.
REFUSED_SECONDS = 3600.0
LOOK_AT_DIVISION_SECONDS = 60.0

# A row that MongoDB will not take however often it is asked, 121 for a validator of the user's.
FOR_GOOD_CODES = frozenset({2, 17419, 10334, 15, 121, DUPLICATE_KEY})


class Mover:
    """Moves the due events of one outbox partition; start() and stop() around a term.

    These are the relay's thread's. All that it knows is its own thread's, in which it calls `tell`,
    but for whether it is at rest. Where nothing was ever scheduled it looks whether that is so
    still, and does nothing else.
    """

    def __init__(
        self,
        database: Database[Any],
        *,
        partition: OutboxPartition,
        margin: timedelta,
        tell: Callable[[facts.EventsFired], None],
    ) -> None:
        self._database = database
        self._partition = partition
        self._tell = tell
        self._chunk = MOST_AT_ONCE
        self._contested = _Contested()
        self._left = LeftRows(database, partition)
        self._housekeeping = Housekeeping(
            database, partition=partition, margin=margin, left=self._left
        )
        self._ready = False
        self._stopping = threading.Event()
        self._at_rest = threading.Event()
        self._at_rest.set()

    def start(self) -> None:
        """Begin, in a thread of its own."""
        threading.Thread(
            target=tracing.silently(self._loop), name="relay-mover", daemon=True
        ).start()

    def stop(self) -> None:
        """Ask the thread to end, and wait for the transaction that it is in, if it is."""
        self._stopping.set()
        self._at_rest.wait(STOP_SECONDS)

    def _loop(self) -> None:
        with self._database.client.start_session() as session:
            self._go_on(session)

    def _go_on(self, session: ClientSession) -> None:
        failures = Doubling(first=LOOK_SECONDS, longest=LONGEST_WAIT_SECONDS)
        reminders, refusals = Reminders(), Reminders(every_seconds=REFUSED_SECONDS)
        while not self._stopping.is_set():
            try:
                self._serve(session, failures)
            except Exception as error:  # noqa: BLE001 - the thread must not end without a word
                if self._stopping.is_set():
                    return
                self._ready = False
                if _is_unauthorized(error):
                    if refusals.is_due(UNAUTHORIZED):
                        _say_refused(self._partition)
                elif reminders.is_due(kind := private_text.described(error)):
                    _say_failed(self._partition, kind, error)
                self._stopping.wait(failures.take())

    def _serve(self, session: ClientSession, failures: Doubling) -> None:
        """Move what is due, until the outbox may be divided otherwise, or an error."""
        found = run(self._database, neighbours(self._partition))
        if found is None:
            self._stopping.wait(CLOSED_SECONDS)
            return
        partitioning, closed = found
        rows = DueRows(
            self._database,
            partitioning=partitioning,
            partition=self._partition,
            session=session,
        )
        # What an earlier term has fired is to be let go of, though nothing waits any more.
        nothing_fired = not self._ready and Fired(self._database, []).is_empty()
        end = time.monotonic() + LOOK_AT_DIVISION_SECONDS
        while not self._stopping.is_set() and (looked_at := time.monotonic()) < end:
            if not self._ready and not self._make_ready(rows, session, nothing_fired=nothing_fired):
                self._stopping.wait(LOOK_SECONDS)
                continue
            self._housekeeping.do_if_due(rows, partitioning, closed=closed)
            clock = rows.clock()
            if clock is not None and clock.seconds <= 0:
                if not self._move(rows, clock.now):
                    return
            else:
                self._rest(clock, took=time.monotonic() - looked_at)
            failures.reset()

    def _rest(self, clock: Clock | None, *, took: float) -> None:
        """Sleep until an event is due, or one may have come; a look that is dear is a rare one."""
        longest = max(LOOK_SECONDS, LOOK_SHARE * took)
        self._stopping.wait(longest if clock is None else min(longest, clock.seconds))

    def _make_ready(self, rows: DueRows, session: ClientSession, *, nothing_fired: bool) -> bool:
        """Do what is to be done before the first move, once anything was ever scheduled."""
        if nothing_fired and rows.is_empty():
            return False
        self._ready = take_over(self._database, self._partition, session)
        if self._ready:
            plan_indexes.prepare_if_allowed(self._database)
        return self._ready

    def _move(self, rows: DueRows, now: datetime) -> bool:
        """Move what is due, some chunks of it; return whether it is worth to go on."""
        for _ in range(CHUNKS_A_LOOK):
            chunk, slots = self._chunk, self._contested.slots()
            found = rows.due(now, limit=chunk, without=slots, left=self._left.unmarked)
            if found.rows and not self._move_some(rows, found.rows, now):
                return False
            if found.odd:
                self._left.leave(rows, found.odd)
            elif not found.rows:
                self._contested.clear()
                self._stopping.wait(CONTESTED_SECONDS)
            if len(found.rows) + len(found.odd) < chunk or self._stopping.is_set():
                break
        return True

    def _move_some(self, rows: DueRows, due: Sequence[DueRow], now: datetime) -> bool:
        try:
            moved = self._moved(rows, due, now)
        except (mongo.PyMongoError, BSONError) as error:
            if is_refusal(error) and self._is_closed():
                self._stopping.wait(CLOSED_SECONDS)
                return False
            if len(due) == 1:
                self._give_up(rows, due[0], error)
            elif not _is_conflict(error) and not _is_for_good(error):
                raise
            moved = False
        if moved:
            self._chunk = min(self._chunk * 2, MOST_AT_ONCE)
            at = due[-1].due_at
            self._tell(
                facts.EventsFired(partition=self._partition, events=len(due), last_due_at=at)
            )
        else:
            # Somebody cancels or moves one of them: the others are not to wait for that one.
            self._chunk = max(1, len(due) // 4)
        return True

    def _is_closed(self) -> bool:
        """Whether the outbox is being divided anew, or a validator of the user's refused a row."""
        return run(self._database, is_closed(self._partition))

    def _moved(self, rows: DueRows, due: Sequence[DueRow], now: datetime) -> bool:
        self._at_rest.clear()
        try:
            return not self._stopping.is_set() and rows.move(due, now)
        finally:
            self._at_rest.set()

    def _give_up(self, rows: DueRows, row: DueRow, error: Exception) -> None:
        if _is_conflict(error):
            self._contested.add(row.slot)
            return
        if not _is_for_good(error):
            raise error
        codes = _codes(error)
        why = "It has no form in BSON, or is too large for it"
        if codes:
            why = f"MongoDB refused to insert it into the outbox (code {max(codes)})"
        if DUPLICATE_KEY in codes:
            why = "An event with this id is in the outbox already"
        self._left.leave(rows, [Odd(row_id=row.row_id, which=row.which, why=why)])


def _say_refused(partition: OutboxPartition) -> None:
    logger.warning(
        "MongoDB refuses this relay a right on %s or %s (code %d): scheduled events of outbox "
        "partition %r, if there are any, stay there. All else goes on; `outbox doctor` names "
        "the rights, and it is tried again",
        wire.SCHEDULED,
        wire.FIRED,
        UNAUTHORIZED,
        partition,
        extra={"action": "schedule"},
    )


def _say_failed(partition: OutboxPartition, kind: str, error: Exception) -> None:
    logger.warning(
        "Scheduled events of outbox partition %r could not be moved into the outbox (%s); it "
        "is tried again",
        partition,
        kind,
        exc_info=None if isinstance(error, mongo.PyMongoError) else error,
        extra={"action": "schedule"},
    )


class _Contested:
    """Slots of rows that somebody else changes just now: left out, so that no key is overtaken.

    Not for long, however much else is due.
    """

    def __init__(self) -> None:
        self._slots: list[int] = []
        self._since = 0.0

    def add(self, slot: int) -> None:
        if not self._slots:
            self._since = time.monotonic()
        self._slots.append(slot)

    def slots(self) -> list[int]:
        old = time.monotonic() - self._since > CONTESTED_AT_MOST_SECONDS
        if old or len(self._slots) > MOST_CONTESTED:
            self.clear()
        return self._slots

    def clear(self) -> None:
        self._slots = []


def _is_conflict(error: Exception) -> bool:
    return isinstance(error, mongo.PyMongoError) and error.has_error_label(
        "TransientTransactionError"
    )


def _is_for_good(error: Exception) -> bool:
    # What MongoDB says of one document it will say again; an outage is the whole command's.
    if _is_conflict(error):
        return False
    details = getattr(error, "details", None) or {}
    of_a_row = isinstance(error, (BSONError, mongo.WriteError)) or bool(details.get("writeErrors"))
    return of_a_row or bool(_codes(error) & FOR_GOOD_CODES)


def _is_unauthorized(error: Exception) -> bool:
    return isinstance(error, mongo.PyMongoError) and UNAUTHORIZED in _codes(error)


def _codes(error: Exception) -> set[int]:
    details = getattr(error, "details", None) or {}
    found = [getattr(error, "code", None), *(e.get("code") for e in details.get("writeErrors", ()))]
    return {code for code in found if code is not None}
