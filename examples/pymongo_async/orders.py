"""PyMongo's AsyncMongoClient: one scope, and transact() for what is to be tried again."""

from events import OrderPaid


async def pay(database, outbox, order_id):
    """Pay an order."""
    async with outbox.scope() as tx:
        query, paid = {"_id": order_id}, {"$set": {"paid": True}}
        await database.orders.update_one(query, paid, upsert=True, session=tx.session)
        await tx.publish(OrderPaid(order_id=order_id))


async def count(database, outbox, order_id):
    """Count a visit: others do so at the same time, and a conflict is tried again as a whole."""

    async def once(tx):
        query, more = {"_id": order_id}, {"$inc": {"visits": 1}}
        await database.orders.update_one(query, more, upsert=True, session=tx.session)
        await tx.publish({"name": "OrderSeen", "data": {"orderId": order_id}})

    await outbox.transact(once)
