"""The outbox: events stored in the transaction that writes the data they tell of."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo import errors as mongo

from postroom import errors, wire
from postroom.server_codes import ILLEGAL_OPERATION
from postroom.store import plan, plan_indexes
from postroom.store.partitioner import Partitioner
from postroom.store.partitioning_record import run
from postroom.store.partitionings import is_refusal
from postroom.store.plan import Due, PlanChange, Which
from postroom.store.row_ids import RowIds
from postroom.store.row_writer import Publishable, RowWriter, listed
from postroom.store.transactions import Attempts, Fate, require_open, transaction
from postroom.store.values import DEFAULT_PARTITION
from postroom.wire import OutboxField
from postroom.writing import Writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime, timedelta

    from bson import ObjectId
    from pymongo.client_session import ClientSession
    from pymongo.collection import Collection
    from pymongo.database import Database

    from postroom.routing import Key

__all__ = ["Outbox", "Transaction", "explained"]

Result = TypeVar("Result")


class Outbox:
    """Writes events into a database's outbox. Thread-safe.

    An event is stored if and only if the transaction it was published in commits; the relay then
    sends it once, in commit order. `key` names the field of the wire data (in camelCase) whose
    value keys the event, or is a function of name and data: events of one key keep their order at
    the consumers. Events whose class names its key go by that; see postroom.routing.

    The outbox called `partition` is divided into `partitions` outbox partitions by the events'
    keys, POSTROOM_PARTITIONS unless given: the same number for all that write there and relay it.
    Events without a key are spread, and have no order where there is more than one.

    `max_message_bytes` is the largest message the broker takes, POSTROOM_MAX_MESSAGE_BYTES unless
    given: an event that would be larger is refused when it is published.

    Needs MongoDB as a replica set or sharded cluster, as transactions do.

    Raises:
        ConfigurationError: `partition` is no name for which a relay can be started, `key` is
            neither a field nor a plain function, or a variable has a value that cannot be used.

    """

    def __init__(
        self,
        database: Database[Any],
        *,
        key: Key | None = None,
        partition: str = DEFAULT_PARTITION,
        partitions: int | None = None,
        max_message_bytes: int | None = None,
    ) -> None:
        self._client = database.client
        self._database = database
        self._rows: Collection[Any] = database[wire.OUTBOX]
        writing = Writing.of(
            database.name, partitions=partitions, max_message_bytes=max_message_bytes
        )
        self._partitioner = Partitioner.of_client(
            database.client, database.name, base=partition, count=writing.partitions
        )
        self._writer = RowWriter.of(writing, partitioner=self._partitioner, key=key)

    def publish(
        self,
        events: Publishable | Iterable[Publishable],
        session: ClientSession | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        deliver_at: datetime | None = None,
        deliver_in: timedelta | None = None,
        schedule: str | None = None,
        replace: bool = False,
    ) -> list[str]:
        """Store one event or several, in order, and return their ids.

        With a session: within the transaction that the caller runs in it. Without: all or none, in
        a transaction of their own. `headers` travel as properties of the messages.

        With `deliver_at`, or `deliver_in` from now on, they are sent when they are due by MongoDB's
        clock, in the order of the due moments, and can be cancelled until then: by the id, or the
        name in `schedule`. An event that waits under that name is refused, or with `replace` put in
        the place of the other one.

        Raises:
            InvalidEvent: an event is not one, or too large; nothing was written.
            OtherPartitioning: the outbox has another number of outbox partitions.
            OutboxError: the session has no transaction, or MongoDB is no replica set.
            pymongo.errors.PyMongoError: MongoDB refused or did not answer.
            Exception: what the key function raised, for a reason that passes.

        """
        due = Due.of(deliver_at, deliver_in, schedule, replace=replace)
        if session is None:
            return self.transact(lambda tx: tx._put(events, headers, due))  # noqa: SLF001
        return self.within(session)._put(events, headers, due)  # noqa: SLF001

    def within(self, session: ClientSession) -> Transaction:
        """Return the transaction that the caller has open in a session, as a handler has.

        Its end is the caller's.

        Raises:
            OutboxError: the session has no transaction.

        """
        if not session.in_transaction:
            raise errors.OutboxError(
                "The session is without a transaction, so that data and event would "
                "not be one; start a transaction in it, or use scope(); nothing was written"
            )
        return Transaction(self, session, RowIds())

    @contextlib.contextmanager
    def scope(self) -> Iterator[Transaction]:
        """Open a transaction for the time of a block, which runs once.

        The commit is tried again for two minutes where its outcome is unknown; an error in the
        block aborts and is passed on, a write conflict too: transact() tries those again.

        What interrupts the end of the transaction (Ctrl-C, a time limit of Celery's) waits until
        that is known, for ten seconds at most, and is raised then: with a note that tells it, as
        the transaction's `committed` does. No transaction is left open.

        Raises:
            OutboxError: MongoDB is no replica set.
            ScopeClosed: the block has ended the session, and with it an open transaction.
            pymongo.errors.PyMongoError: the transaction failed; nothing was written, unless the
                error is labelled UnknownTransactionCommitResult.

        """
        with self._client.start_session() as session, explained():
            tx = Transaction(self, session, RowIds())
            with tx._running():  # noqa: SLF001 - the scope's other half
                yield tx

    def transact(self, callback: Callable[[Transaction], Result]) -> Result:
        """Run a callback in a transaction, the whole of it again after a transient conflict.

        By the rules of PyMongo's with_transaction(), and those of scope() where it is interrupted.
        The ids of its events are made once, so that every try writes the same rows. Returns what
        the callback returned.

        Raises:
            OutboxError: MongoDB is no replica set.
            pymongo.errors.PyMongoError: the transaction failed; nothing was written, unless the
                error is labelled UnknownTransactionCommitResult.
            BaseException: whatever the callback raised; nothing was written.

        """
        ids, attempts = RowIds(), Attempts()
        with self._client.start_session() as session, explained():
            while True:
                tx = Transaction(self, session, ids.again())
                try:
                    with tx._running():  # noqa: SLF001 - the scope's other half
                        result = callback(tx)
                except mongo.PyMongoError as error:
                    time.sleep(attempts.pause_after(error))
                except errors.PartitioningChanged:
                    continue
                else:
                    return result

    def _insert(
        self,
        events: Publishable | Iterable[Publishable],
        session: ClientSession,
        headers: Mapping[str, str] | None,
        ids: Iterator[ObjectId],
    ) -> list[str]:
        if self._partitioner.known is None:
            run(self._database, self._partitioner.learn())
        placed_by = self._partitioner.known
        rows = [self._writer.row(one, row_id=next(ids), headers=headers) for one in listed(events)]
        try:
            if len(rows) == 1:
                self._rows.insert_one(rows[0], session=session)
            elif rows:
                self._rows.insert_many(rows, session=session)
        except mongo.OperationFailure as error:
            if is_refusal(error):
                run(self._database, self._partitioner.refused(placed_by))
            raise
        return [str(row[OutboxField.ID]) for row in rows]

    def _schedule(
        self,
        events: Publishable | Iterable[Publishable],
        session: ClientSession,
        headers: Mapping[str, str] | None,
        ids: Iterator[ObjectId],
        due: Due,
    ) -> list[str]:
        self._make_plan()
        rows = [
            self._writer.scheduled(event, row_id=next(ids), headers=headers, more=due.fields())
            for event in listed(events)
        ]
        run(self._database, plan.schedule(rows, self._partitioner.base, due), session)
        return [str(row[OutboxField.ID]) for row in rows]

    def _make_plan(self) -> None:
        # Before this transaction touches the plan: an index would wait for its end.
        if not self._partitioner.has_plan:
            run(self._database, plan_indexes.commands())
            self._partitioner.has_plan = True

    def _change(
        self, name: str | None, event_id: str | None, due: Due | None, session: ClientSession
    ) -> PlanChange:
        which = Which.of(self._partitioner.base, name, event_id)
        self._make_plan()
        change = plan.cancel(which) if due is None else plan.reschedule(which, due)
        return run(self._database, change, session)


class Transaction:
    """An open transaction: pass `session` to your own writes, publish() events beside them.

    `committed` tells what became of it, also where its end was interrupted: True or False, or None
    while it is open, where the block has ended it itself, and where nobody knows.
    """

    def __init__(self, outbox: Outbox, session: ClientSession, ids: RowIds) -> None:
        self._outbox = outbox
        self._ids = ids
        self._open = True
        self._fate = Fate()
        self.session = session

    @property
    def committed(self) -> bool | None:
        """Whether the transaction was committed, as far as that is known."""
        return self._fate.committed

    def publish(
        self,
        events: Publishable | Iterable[Publishable],
        *,
        headers: Mapping[str, str] | None = None,
        deliver_at: datetime | None = None,
        deliver_in: timedelta | None = None,
        schedule: str | None = None,
        replace: bool = False,
    ) -> list[str]:
        """Store one event or several, in order, within this transaction, and return their ids.

        Raises:
            ScopeClosed: the scope has ended, or its block has ended the transaction.
            InvalidEvent: an event is not one, or too large; the transaction should be given up.
            AlreadyScheduled: an event waits under the name, and is not to be replaced.
            OtherPartitioning: the outbox has another number of outbox partitions.
            pymongo.errors.PyMongoError: MongoDB refused or did not answer.
            Exception: what the key function raised, for a reason that passes.

        """
        due = Due.of(deliver_at, deliver_in, schedule, replace=replace)
        return self._put(events, headers, due)

    def cancel(self, schedule: str | None = None, *, event_id: str | None = None) -> PlanChange:
        """Cancel an event that is not due yet, by its name or id, within this transaction.

        Where it becomes due at the same time one of both transactions fails with a write conflict,
        so that it is either cancelled or fired. What came too late says so.

        Raises:
            ScopeClosed: the scope has ended, or its block has ended the transaction.
            InvalidEvent: neither or both are given, or no event can be called so.
            pymongo.errors.PyMongoError: MongoDB refused or did not answer.

        """
        require_open(self.session, is_open=self._open)
        return self._outbox._change(schedule, event_id, None, self.session)  # noqa: SLF001

    def reschedule(
        self,
        schedule: str | None = None,
        *,
        event_id: str | None = None,
        deliver_at: datetime | None = None,
        deliver_in: timedelta | None = None,
    ) -> PlanChange:
        """Have an event that waits be due at another time; as cancel() does, and its id stays.

        Raises:
            ScopeClosed: the scope has ended, or its block has ended the transaction.
            InvalidEvent: no event can be called so, or that is no time.
            pymongo.errors.PyMongoError: MongoDB refused or did not answer.

        """
        require_open(self.session, is_open=self._open)
        due = Due.to(deliver_at, deliver_in)
        return self._outbox._change(schedule, event_id, due, self.session)  # noqa: SLF001

    def _put(
        self,
        events: Publishable | Iterable[Publishable],
        headers: Mapping[str, str] | None,
        due: Due | None,
    ) -> list[str]:
        require_open(self.session, is_open=self._open)
        if due is None:
            return self._outbox._insert(events, self.session, headers, self._ids)  # noqa: SLF001
        return self._outbox._schedule(  # noqa: SLF001
            events, self.session, headers, self._ids, due
        )

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        with transaction(self.session, self._fate):
            try:
                yield
            finally:
                self._open = False


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Say of a MongoDB without transactions what to do about it."""
    try:
        yield
    except mongo.OperationFailure as error:
        if error.code == ILLEGAL_OPERATION and "replica set" in str(error):
            raise errors.OutboxError(
                "MongoDB is no replica set and has no transactions: start mongod with "
                "`--replSet rs0` and run rs.initiate() once; nothing was written"
            ) from error
        raise
