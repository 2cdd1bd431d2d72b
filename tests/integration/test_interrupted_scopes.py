"""Scopes that are cancelled or interrupted: committed or not, the caller knows, none stays open."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import AsyncMongoClient

from postroom import AsyncOutbox, AsyncTransaction, Outbox
from tests.interrupting import SPAN_SECONDS, counted
from tests.interrupting import TRANSACTIONS as TIMES
from tests.site import ROOT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from devstack.replica_set import ReplicaSet
    from tests.site import Site

# PyMongo forgets the socket of a connection in whose making it is cancelled.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

# Of those, for each interruption: struck in the instant in which the outcome is noted.
MOST_UNKNOWN = 2


def open_transactions(site: Site) -> list[Any]:
    """Return what the server knows of transactions that nobody has ended."""
    found = site.mongodb.admin.aggregate([{"$currentOp": {"idleSessions": True}}])
    return [each for each in found if "transaction" in each]


def number_is_there(site: Site, number: int) -> bool:
    """Say whether a transaction was committed; data and event together."""
    there = site.database["things"].find_one({"_id": number}) is not None
    assert (site.outbox.find_one({"data.data.number": number}) is not None) is there
    return there


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


@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_interrupted_scope_has_committed_or_not_and_says_so(lite_site: Site, times: int) -> None:
    """The same for a thread: Ctrl-C, or a time limit of Celery's, and more of it right behind."""
    words = ("-m", "tests.interrupting", lite_site.environment["POSTROOM_MONGODB_URI"])
    ended = subprocess.run(
        [sys.executable, *words, lite_site.name, str(times)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert ended.returncode == 0, ended.stderr
    seen = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(seen) == TIMES
    for each in seen:
        assert each["data"] == each["events"], each
        assert each["committed"] in {bool(each["data"]), None}, each
        assert each["raised"] or each["data"], each
        assert not each["open"], each
    assert sum(each["committed"] is None for each in seen) <= MOST_UNKNOWN * times
    assert any(each["strikes"] == times for each in seen)


def test_what_ends_a_block_from_outside_says_that_nothing_was_written(lite_site: Site) -> None:
    """Where the transaction is given up in mid-block too: by a note on the interruption."""
    site, said = lite_site, ["The transaction was not committed; nothing was written."]
    outbox = Outbox(site.database)
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind) as raised, outbox.scope() as tx:
            tx.publish(counted(7))
            raise kind
        assert raised.value.__notes__ == said
        assert tx.committed is False

    async def run() -> BaseException | None:
        async with AsyncMongoClient[Any](site.environment["POSTROOM_MONGODB_URI"]) as client:

            async def work() -> None:
                async with AsyncOutbox(client[site.name]).scope() as its:
                    await its.publish(counted(7))
                    reached.set()
                    await asyncio.sleep(60)

            reached = asyncio.Event()
            task = asyncio.create_task(work())
            await reached.wait()
            task.cancel()
            try:
                await task
            except asyncio.CancelledError as error:
                return error
            return None

    assert getattr(asyncio.run(run()), "__notes__", None) == said
    assert open_transactions(site) == []
    assert site.outbox.count_documents({"data.data.number": 7}) == 0
