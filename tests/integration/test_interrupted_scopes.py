"""Scopes that are cancelled or interrupted: committed or not, the caller knows, none stays open."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import AsyncMongoClient

from postroom import AsyncOutbox, AsyncTransaction, Outbox, Transaction
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from devstack.replica_set import ReplicaSet
    from tests.site import Site

TIMES = 80
# Somewhat longer than a transaction takes; on a busy machine some are interrupted early.
SPAN_SECONDS = 0.012


def open_transactions(site: Site) -> list[Any]:
    """Return what the server knows of transactions that nobody has ended."""
    found = site.mongodb.admin.aggregate([{"$currentOp": {"idleSessions": True}}])
    return [each for each in found if "transaction" in each]


def number_is_there(site: Site, number: int) -> bool:
    """Say whether a transaction was committed; data and event together."""
    there = site.database["things"].find_one({"_id": number}) is not None
    assert (site.outbox.find_one({"data.data.number": number}) is not None) is there
    return there


def counted(number: int) -> dict[str, Any]:
    """Return an event."""
    return {"name": "Counted", "data": {"number": number}}


async def cancelled(work: Awaitable[Any], *, times: int, dice: random.Random) -> Any:
    """Cancel a task at some moment, and again right behind that; return what it raised."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(dice.random() * SPAN_SECONDS)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(dice.random() * 0.001)
    try:
        await task
    except asyncio.CancelledError as error:
        return error
    return None


async def with_scope(outbox: AsyncOutbox, database: Any, number: int, made: list[Any]) -> None:
    """Write and publish in a scope."""
    async with outbox.scope() as tx:
        made.append(tx)
        await database["things"].insert_one({"_id": number}, session=tx.session)
        await tx.publish(counted(number))


async def with_callback(outbox: AsyncOutbox, database: Any, number: int, made: list[Any]) -> None:
    """Write and publish in a callback."""

    async def call(tx: AsyncTransaction) -> None:
        made.append(tx)
        await database["things"].insert_one({"_id": number}, session=tx.session)
        await tx.publish(counted(number))

    await outbox.transact(call)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("write", [with_scope, with_callback])
def test_a_cancelled_scope_has_committed_or_not_and_says_so(
    lite_site: Site, write: Callable[..., Awaitable[None]], times: int
) -> None:
    """By a note on the error and by the transaction; and the server holds none open."""
    site, seen = lite_site, Counter[Any]()
    Outbox(site.database).publish(counted(-1))
    site.database["things"].insert_one({"_id": -1})

    async def run() -> None:
        dice = random.Random(7)
        async with AsyncMongoClient[Any](site.environment["POSTROOM_MONGODB_URI"]) as client:
            database = client[site.name]
            outbox = AsyncOutbox(database)
            await outbox.publish(counted(-2))
            for number in range(TIMES):
                made: list[AsyncTransaction] = []
                work = write(outbox, database, number, made)
                error = await cancelled(work, times=times, dice=dice)
                there = number_is_there(site, number)
                assert there is (bool(made) and made[-1].committed is True)
                if error is None:
                    assert there
                elif there:
                    assert error.__notes__ == ["The transaction was committed all the same."]
                assert open_transactions(site) == []
                seen[error is None, there] += 1

    asyncio.run(run())
    assert seen[False, False], seen


def test_a_timeout_leads_to_the_outcome(lite_site: Site) -> None:
    """Its cause is the cancellation, with the note."""
    site, there = lite_site, []
    site.database["things"].insert_one({"_id": -1})

    async def run() -> None:
        async with AsyncMongoClient[Any](site.environment["POSTROOM_MONGODB_URI"]) as client:
            database = client[site.name]
            outbox = AsyncOutbox(database)
            for number in range(TIMES):
                made: list[AsyncTransaction] = []
                try:
                    async with asyncio.timeout(0.002 + random.random() * SPAN_SECONDS):
                        await with_scope(outbox, database, number, made)
                except TimeoutError as error:
                    notes = getattr(error.__cause__, "__notes__", [""])
                    assert ("committed all the same" in notes[0]) is number_is_there(site, number)
                else:
                    assert number_is_there(site, number)
                there.append(bool(made) and made[0].committed)
                assert there[-1] is number_is_there(site, number)

    asyncio.run(run())
    assert open_transactions(site) == []


def test_an_error_in_the_block_aborts_though_cancelled(lite_site: Site) -> None:
    """The abort is sent all the same, and the cancellation raised from the error."""
    site = lite_site
    site.database["things"].insert_one({"_id": -1})

    async def fail(outbox: AsyncOutbox, database: Any, number: int) -> None:
        async with outbox.scope() as tx:
            await database["things"].insert_one({"_id": number}, session=tx.session)
            await tx.publish(counted(number))
            raise KeyError

    async def run() -> None:
        async with AsyncMongoClient[Any](site.environment["POSTROOM_MONGODB_URI"]) as client:
            database = client[site.name]
            outbox, dice = AsyncOutbox(database), random.Random(7)
            for number in range(TIMES):
                with contextlib.suppress(KeyError):
                    await cancelled(fail(outbox, database, number), times=2, dice=dice)
                assert not number_is_there(site, number)
                assert open_transactions(site) == []

    asyncio.run(run())


def test_a_majority_that_stands_still_holds_nobody_up(replica_set: ReplicaSet) -> None:
    """Ten seconds after the cancellation the caller goes on, and is told that nobody knows."""
    made: list[AsyncTransaction] = []

    async def run() -> None:
        async with AsyncMongoClient[Any](replica_set.url) as client:
            database = client["interrupted"]
            outbox = AsyncOutbox(database)
            await outbox.publish(counted(-1))
            await database["things"].insert_one({"_id": -1})
            for member in replica_set.secondaries():
                member.freeze()
            task = asyncio.create_task(with_scope(outbox, database, 1, made))
            await asyncio.sleep(1)
            began = time.monotonic()
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0.01)
            with pytest.raises(asyncio.CancelledError) as raised:
                await task
            assert time.monotonic() - began < 14
            assert raised.value.__notes__ == ["Whether the transaction was committed is not known."]

    asyncio.run(run())
    assert made[0].committed is None


class Interrupted(BaseException):
    """What Ctrl-C raises, for this test alone."""


@contextlib.contextmanager
def interrupted(times: int, dice: random.Random) -> Iterator[None]:
    """Raise in the main thread at some moment of a block, and again right behind that."""
    left = [times]

    def strike(*_: object) -> None:
        left[0] -= 1
        if left[0]:
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + dice.random() * 0.001)
        raise Interrupted

    before, hook = signal.signal(signal.SIGALRM, strike), sys.unraisablehook
    # It may strike within a destructor, or within pytest's own hook for those.
    sys.unraisablehook = lambda _: None
    signal.setitimer(signal.ITIMER_REAL, 0.0005 + dice.random() * SPAN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = hook


# The driver leaves a socket that it was just opening to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("times", [1])  # a second one may strike the test's own end
def test_an_interrupted_scope_has_committed_or_not_and_says_so(lite_site: Site, times: int) -> None:
    """The same for a thread: Ctrl-C, or a time limit of Celery's."""
    site, dice, seen = lite_site, random.Random(7), Counter[Any]()
    outbox = Outbox(site.database)
    outbox.publish(counted(-1))
    site.database["things"].insert_one({"_id": -1})
    for number in range(TIMES):
        made: list[Transaction] = []
        error: BaseException | None = None
        try:
            with interrupted(times, dice), outbox.scope() as tx:
                made.append(tx)
                site.database["things"].insert_one({"_id": number}, session=tx.session)
                tx.publish(counted(number))
        except Interrupted as raised:
            signal.setitimer(signal.ITIMER_REAL, 0)  # where the end of the block was struck
            error = raised
        there = number_is_there(site, number)
        known = made[-1].committed if made else False
        assert known is there or known is None
        assert error is not None or there
        seen[known, there] += 1
        wait_until(lambda: open_transactions(site) == [], description="none is open", seconds=2)
    assert seen[None, True] + seen[None, False] <= 2, seen
