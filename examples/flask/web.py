"""The outbox is made once a process; each request has a transaction of its own."""

import functools

from events import OrderPaid
from flask import Flask
from pymongo import MongoClient

from postroom import Outbox, Settings
from postroom.contrib.requests import WSGICarrier

app = Flask(__name__)
app.wsgi_app = WSGICarrier(app.wsgi_app)


@functools.cache  # at the first request of a process: after gunicorn's fork
def database():
    """Return the database."""
    settings = Settings()
    return MongoClient(settings.mongodb_uri)[settings.mongodb_database]


@functools.cache
def outbox():
    """Return its outbox."""
    return Outbox(database())


@app.post("/orders/<order_id>/payment")
def pay(order_id):
    """Pay an order."""
    with outbox().scope() as tx:
        query, paid = {"_id": order_id}, {"$set": {"paid": True}}
        database().orders.update_one(query, paid, upsert=True, session=tx.session)
        tx.publish(OrderPaid(order_id=order_id))
    return "", 204
