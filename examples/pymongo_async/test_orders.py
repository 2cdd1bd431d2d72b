"""Writing together, being cancelled, and being in one another's way."""

import asyncio

import pytest
from events import OrderPaid
from orders import count, pay

from postroom import AsyncOutbox


def test_an_order_is_paid(outbox_site):
    """Its event is on the topic."""

    async def main():
        async with outbox_site.async_client() as client:
            database = client[outbox_site.settings.mongodb_database]
            await pay(database, AsyncOutbox(database), "7")

    asyncio.run(main())
    assert outbox_site.drain().assert_published(OrderPaid, order_id="7")


def test_conflicts_are_tried_again(outbox_site):
    """Each visit is counted and told once."""

    async def main():
        async with outbox_site.async_client() as client:
            database = client[outbox_site.settings.mongodb_database]
            outbox = AsyncOutbox(database)
            await asyncio.gather(*(count(database, outbox, "7") for _ in range(5)))

    outbox_site.database.orders.insert_one({"_id": "7"})
    asyncio.run(main())
    assert outbox_site.database.orders.find_one()["visits"] == 5
    assert outbox_site.waiting() == 5


def test_a_cancelled_task_leaves_no_open_transaction(outbox_site):
    """The document is free at once for the next one."""

    async def main():
        async with outbox_site.async_client() as client:
            database = client[outbox_site.settings.mongodb_database]
            outbox, begun = AsyncOutbox(database), asyncio.Event()

            async def hang():
                async with outbox.scope() as tx:
                    more = {"$inc": {"visits": 1}}
                    await database.orders.update_one({"_id": "7"}, more, session=tx.session)
                    await tx.publish(OrderPaid(order_id="7"))
                    begun.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(hang())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(5):
                await count(database, outbox, "7")

    outbox_site.database.orders.insert_one({"_id": "7"})
    asyncio.run(main())
    assert outbox_site.database.orders.find_one()["visits"] == 1
    assert [each.event.name for each in outbox_site.drain().published] == ["OrderSeen"]
