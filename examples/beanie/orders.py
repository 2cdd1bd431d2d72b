"""Beanie 2: its documents take the session of the scope."""

from beanie import Document
from events import OrderPaid


class Order(Document):
    """An order."""

    number: str
    paid: bool = False


async def pay(outbox, number):
    """Store a paid order, and tell of it."""
    async with outbox.scope() as tx:
        order = Order(number=number, paid=True)
        await order.insert(session=tx.session)
        await tx.publish(OrderPaid(order_id=number))
