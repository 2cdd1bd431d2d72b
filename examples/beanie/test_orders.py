"""A document and its event are one."""

import asyncio

import pytest

beanie = pytest.importorskip("beanie", reason="Beanie is not installed")


def test_an_order_is_paid(outbox_site):
    """What fails leaves neither."""
    from events import OrderPaid
    from orders import Order, pay

    from postroom import AsyncOutbox

    async def main():
        async with outbox_site.async_client() as client:
            database = client[outbox_site.settings.mongodb_database]
            await beanie.init_beanie(database=database, document_models=[Order])
            outbox = AsyncOutbox(database)
            await pay(outbox, "7")
            with pytest.raises(ZeroDivisionError):  # noqa: PT012
                async with outbox.scope() as tx:
                    await Order(number="8").insert(session=tx.session)
                    1 / 0  # noqa: B018
            return await Order.count()

    assert asyncio.run(main()) == 1
    assert outbox_site.drain().assert_published(OrderPaid, order_id="7")
