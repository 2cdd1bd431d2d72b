"""Requests that write and publish in one transaction, which is committed before the answer."""

from events import OrderPaid
from fastapi import FastAPI, HTTPException

from postroom.contrib.fastapi import Database, Tx, lifespan
from postroom.contrib.requests import ASGICarrier

app = FastAPI(lifespan=lifespan())
app.add_middleware(ASGICarrier)


@app.post("/orders/{order_id}/payment", status_code=204)
async def pay(order_id: str, tx: Tx, database: Database) -> None:
    """Pay an order once."""
    paid = {"$set": {"paid": True}}
    query = {"_id": order_id, "paid": {"$ne": True}}
    done = await database.orders.update_one(query, paid, session=tx.session)
    if not done.matched_count:
        raise HTTPException(409, "There is no such order, or it is paid")
    await tx.publish(OrderPaid(order_id=order_id))
