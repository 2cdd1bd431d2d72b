"""A script without Celery: it writes and publishes, a relay elsewhere sends."""

import sys

from events import OrderPaid
from pymongo import MongoClient

from postroom import Outbox, Settings


def main(order_ids):
    """Store orders, each with its event; what is there already is left as it is."""
    settings = Settings()
    with MongoClient(settings.mongodb_uri) as client:
        database = client[settings.mongodb_database]
        outbox = Outbox(database)
        for order_id in order_ids:
            with outbox.scope() as tx:
                query, order = {"_id": order_id}, {"$setOnInsert": {"paid": True}}
                done = database.orders.update_one(query, order, upsert=True, session=tx.session)
                if done.upserted_id is not None:
                    tx.publish(OrderPaid(order_id=order_id))


if __name__ == "__main__":
    main(sys.argv[1:])
