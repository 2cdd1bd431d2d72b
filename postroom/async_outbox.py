"""The outbox for asyncio: the same promises as postroom.outbox, on PyMongo's AsyncMongoClient."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo import errors as mongo

from postroom import errors, wire
from postroom.outbox import explained
from postroom.store import plan, plan_indexes
from postroom.store.async_transactions import async_transaction
from postroom.store.partitioner import Partitioner
from postroom.store.partitioning_record import PLAIN
from postroom.store.partitionings import is_refusal
from postroom.store.plan import Due, PlanChange, Which
from postroom.store.row_ids import RowIds
from postroom.store.row_writer import Publishable, RowWriter, listed
from postroom.store.transactions import Attempts, Fate, require_open
from postroom.store.values import DEFAULT_PARTITION
from postroom.wire import OutboxField
from postroom.writing import Writing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
    from datetime import datetime, timedelta

    from bson import ObjectId
    from pymongo.asynchronous.client_session import AsyncClientSession
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.asynchronous.database import AsyncDatabase

    from postroom.routing import Key
    from postroom.store.partitioning_record import Commands

__all__ = ["AsyncOutbox", "AsyncTransaction"]

Result = TypeVar("Result")


class AsyncOutbox:
    """Writes events into one partition of a database's outbox, from one event loop.

    See `Outbox`, whose guarantees and arguments these are.
    """

    def __init__(
        self,
        database: AsyncDatabase[Any],
        *,
        key: Key | None = None,
        partition: str = DEFAULT_PARTITION,
        partitions: int | None = None,
        max_message_bytes: int | None = None,
    ) -> None:
        self._client = database.client
        self._database = database
        self._rows: AsyncCollection[Any] = database[wire.OUTBOX]
        writing = Writing.of(
            database.name, partitions=partitions, max_message_bytes=max_message_bytes
        )
        self._partitioner = Partitioner.of_client(
            database.client, database.name, base=partition, count=writing.partitions
        )
        self._writer = RowWriter.of(writing, partitioner=self._partitioner, key=key)

    async def publish(
        self,
        events: Publishable | Iterable[Publishable],
        session: AsyncClientSession | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        deliver_at: datetime | None = None,
        deliver_in: timedelta | None = None,
        schedule: str | None = None,
        replace: bool = False,
    ) -> list[str]:
        """Store one event or several, in order, and return their ids; see Outbox.publish().

        Raises:
            InvalidEvent: an event is not one, or too large; nothing was written.
            OtherPartitioning: the outbox has another number of outbox partitions.
            OutboxError: the session has no transaction, or MongoDB is no replica set.
            pymongo.errors.PyMongoError: MongoDB refused or did not answer.
            Exception: what the key function raised, for a reason that passes.

        """
        due = Due.of(deliver_at, deliver_in, schedule, replace=replace)
        if session is None:
            return await self.transact(lambda tx: tx._put(events, headers, due))  # noqa: SLF001
        return await self.within(session)._put(events, headers, due)  # noqa: SLF001

    def within(self, session: AsyncClientSession) -> AsyncTransaction:
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
        return AsyncTransaction(self, session, RowIds())

    @contextlib.asynccontextmanager
    async def scope(self) -> AsyncIterator[AsyncTransaction]:
        """Open a transaction for the time of a block, which runs once; see Outbox.scope().

        A cancellation aborts, or waits until the commit that it met is known, for ten seconds at
        most. The CancelledError has a note that tells it; asyncio.timeout() makes a TimeoutError of
        it, whose `__cause__` it is. The transaction's `committed` tells it too.
        """
        async with self._client.start_session() as session:
            with explained():
                tx = AsyncTransaction(self, session, RowIds())
                async with tx._running():  # noqa: SLF001 - the scope's other half
                    yield tx

    async def transact(self, callback: Callable[[AsyncTransaction], Awaitable[Result]]) -> Result:
        """Run a callback in a transaction, the whole of it again after a transient conflict.

        See Outbox.transact(), and scope() for cancellations.

        Raises:
            OutboxError: MongoDB is no replica set.
            pymongo.errors.PyMongoError: the transaction failed; nothing was written, unless the
                error is labelled UnknownTransactionCommitResult.
            BaseException: whatever the callback raised; nothing was written.

        """
        ids, attempts = RowIds(), Attempts()
        async with self._client.start_session() as session:
            with explained():
                while True:
                    tx = AsyncTransaction(self, session, ids.again())
                    try:
                        async with tx._running():  # noqa: SLF001 - the scope's other half
                            result = await callback(tx)
                    except mongo.PyMongoError as error:
                        await asyncio.sleep(attempts.pause_after(error))
                    except errors.PartitioningChanged:
                        continue
                    else:
                        return result

    async def _insert(
        self,
        events: Publishable | Iterable[Publishable],
        session: AsyncClientSession,
        headers: Mapping[str, str] | None,
        ids: Iterator[ObjectId],
    ) -> list[str]:
        if self._partitioner.known is None:
            await _run(self._database, self._partitioner.learn())
        placed_by = self._partitioner.known
        rows = [self._writer.row(one, row_id=next(ids), headers=headers) for one in listed(events)]
        try:
            if len(rows) == 1:
                await self._rows.insert_one(rows[0], session=session)
            elif rows:
                await self._rows.insert_many(rows, session=session)
        except mongo.OperationFailure as error:
            if is_refusal(error):
                await _run(self._database, self._partitioner.refused(placed_by))
            raise
        return [str(row[OutboxField.ID]) for row in rows]

    async def _schedule(
        self,
        events: Publishable | Iterable[Publishable],
        session: AsyncClientSession,
        headers: Mapping[str, str] | None,
        ids: Iterator[ObjectId],
        due: Due,
    ) -> list[str]:
        await self._make_plan()
        rows = [
            self._writer.scheduled(event, row_id=next(ids), headers=headers, more=due.fields())
            for event in listed(events)
        ]
        await _run(self._database, plan.schedule(rows, self._partitioner.base, due), session)
        return [str(row[OutboxField.ID]) for row in rows]

    async def _make_plan(self) -> None:
        # Before this transaction touches the plan: an index would wait for its end.
        if not self._partitioner.has_plan:
            await _run(self._database, plan_indexes.commands())
            self._partitioner.has_plan = True

    async def _change(
        self, name: str | None, event_id: str | None, due: Due | None, session: AsyncClientSession
    ) -> PlanChange:
        which = Which.of(self._partitioner.base, name, event_id)
        await self._make_plan()
        change = plan.cancel(which) if due is None else plan.reschedule(which, due)
        return await _run(self._database, change, session)


class AsyncTransaction:
    """An open transaction: pass `session` to your own writes, publish() events beside them.

    `committed` tells what became of it, also where its end was interrupted: True or False, or None
    while it is open, where the block has ended it itself, and where nobody knows.
    """

    def __init__(self, outbox: AsyncOutbox, session: AsyncClientSession, ids: RowIds) -> None:
        self._outbox = outbox
        self._ids = ids
        self._open = True
        self._fate = Fate()
        self.session = session

    @property
    def committed(self) -> bool | None:
        """Whether the transaction was committed, as far as that is known."""
        return self._fate.committed

    async def publish(
        self,
        events: Publishable | Iterable[Publishable],
        *,
        headers: Mapping[str, str] | None = None,
        deliver_at: datetime | None = None,
        deliver_in: timedelta | None = None,
        schedule: str | None = None,
        replace: bool = False,
    ) -> list[str]:
        """Store one event or several within this transaction; see Transaction.publish().

        Raises:
            ScopeClosed: the scope has ended, or its block has ended the transaction.
            InvalidEvent: an event is not one, or too large; the transaction should be given up.
            AlreadyScheduled: an event waits under the name, and is not to be replaced.
            OtherPartitioning: the outbox has another number of outbox partitions.
            pymongo.errors.PyMongoError: MongoDB refused or did not answer.
            Exception: what the key function raised, for a reason that passes.

        """
        due = Due.of(deliver_at, deliver_in, schedule, replace=replace)
        return await self._put(events, headers, due)

    async def cancel(
        self, schedule: str | None = None, *, event_id: str | None = None
    ) -> PlanChange:
        """Cancel an event that is not due yet, by its name or id, within this transaction.

        Where it becomes due at the same time one of both transactions fails with a write conflict,
        so that it is either cancelled or fired. What came too late says so.

        Raises:
            ScopeClosed: the scope has ended, or its block has ended the transaction.
            InvalidEvent: neither or both are given, or no event can be called so.
            pymongo.errors.PyMongoError: MongoDB refused or did not answer.

        """
        require_open(self.session, is_open=self._open)
        return await self._outbox._change(schedule, event_id, None, self.session)  # noqa: SLF001

    async def reschedule(
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
        return await self._outbox._change(schedule, event_id, due, self.session)  # noqa: SLF001

    async def _put(
        self,
        events: Publishable | Iterable[Publishable],
        headers: Mapping[str, str] | None,
        due: Due | None,
    ) -> list[str]:
        require_open(self.session, is_open=self._open)
        if due is None:
            return await self._outbox._insert(events, self.session, headers, self._ids)  # noqa: SLF001
        return await self._outbox._schedule(  # noqa: SLF001
            events, self.session, headers, self._ids, due
        )

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        async with async_transaction(self.session, self._fate):
            try:
                yield
            finally:
                self._open = False


async def _run(
    database: AsyncDatabase[Any],
    commands: Commands[Result],
    session: AsyncClientSession | None = None,
) -> Result:
    """Run commands as postroom.store.partitioning_record.run() does."""
    try:
        command = next(commands)
        while True:
            try:
                reply = await database.command(command, codec_options=PLAIN, session=session)
            except mongo.PyMongoError as error:
                command = commands.throw(error)
            else:
                command = commands.send(reply)
    except StopIteration as end:
        result: Result = end.value
        return result
