"""The write side for asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import AsyncMongoClient

from postroom import AsyncOutbox, AsyncTransaction, DomainEvent, OutboxError, ScopeClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.site import Site


class Assigned(DomainEvent):
    """A sample."""

    medicine_id: str


def in_loop(site: Site, test: Callable[[Any, AsyncOutbox], Awaitable[None]]) -> None:
    """Run a test with a client of its own loop."""

    async def run() -> None:
        async with AsyncMongoClient[Any](site.environment["POSTROOM_MONGODB_URI"]) as client:
            database = client[site.name]
            await test(database, AsyncOutbox(database))

    asyncio.run(run())


def test_a_scope_commits_or_aborts(lite_site: Site) -> None:
    """Data and events are there together, or neither is."""

    async def test(database: Any, outbox: AsyncOutbox) -> None:
        async with outbox.scope() as tx:
            await database.things.insert_one({"_id": 1}, session=tx.session)
            await tx.publish([Assigned(medicine_id="a"), Assigned(medicine_id="b")])
        with pytest.raises(ScopeClosed):
            await tx.publish(Assigned(medicine_id="c"))
        with pytest.raises(KeyError):
            async with outbox.scope() as tx:
                await tx.publish(Assigned(medicine_id="d"))
                raise KeyError

    in_loop(lite_site, test)
    assert [r["data"]["data"]["medicineId"] for r in lite_site.outbox.find()] == ["a", "b"]
    assert lite_site.database["things"].count_documents({}) == 1


def test_publish_and_transact(lite_site: Site) -> None:
    """Alone, in the caller's transaction, and in a callback that is run again."""

    async def test(database: Any, outbox: AsyncOutbox) -> None:
        await outbox.publish(Assigned(medicine_id="a"))

        async def work(tx: AsyncTransaction) -> list[str]:
            return await tx.publish(Assigned(medicine_id="b"))

        (event_id,) = await outbox.transact(work)
        assert await database["__outboxMessages"].find_one({"key": None, "_id": {"$ne": event_id}})
        async with database.client.start_session() as session:
            with pytest.raises(OutboxError):
                await outbox.publish(Assigned(medicine_id="c"), session)
            async with await session.start_transaction():
                await outbox.publish(Assigned(medicine_id="c"), session)

    in_loop(lite_site, test)
    assert [r["data"]["data"]["medicineId"] for r in lite_site.outbox.find()] == ["a", "b", "c"]
