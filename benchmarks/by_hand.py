"""The consumer that one would write by hand: threads, the aid-kit's update, no Celery.

`python -m benchmarks.by_hand TOPIC LOG`, with the settings in the environment; runs until killed.
It updates the chart through the inbox: one transaction for each event, as one would write it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pulsar
from pymongo import MongoClient

from postroom import broker
from postroom.envelope import Envelopes
from postroom.inbox.handling.handlers import registry
from postroom.inbox.handling.inbox import Inbox
from postroom.inbox.scheduling.delivery import Delivery, footprint

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

    from postroom import Event

THREADS = 8


def main() -> None:
    """Consume for ever."""
    topic, log = sys.argv[1:]
    # The handler's own line in the log is a part of its work, in the worker too.
    logging.basicConfig(filename=log, level=logging.WARNING)
    logging.getLogger("workers").setLevel(logging.INFO)
    from workers.consumer import CHARTS, noted

    def keep_chart(event: Event[Any], session: ClientSession) -> None:
        charts = session.client[database.name][CHARTS]
        chart = {"_id": event.data.patient_id}
        charts.update_one(chart, noted(event), upsert=True, session=session)

    handler = dataclasses.replace(
        registry.handlers["workers.keep_chart"], function=keep_chart, wants_session=True
    )
    mongo: MongoClient[Any] = MongoClient(os.environ["POSTROOM_MONGODB_URI"], tz_aware=True)
    database = mongo[os.environ["POSTROOM_MONGODB_DATABASE"]]
    inbox = Inbox(database, subscription="test", keep=timedelta(days=30))
    inbox.prepare()
    url = os.environ["POSTROOM_PULSAR_URL"]
    client = broker.connect(url, operation_timeout=timedelta(seconds=10))
    consumer = client.subscribe(topic, "test", consumer_type=pulsar.ConsumerType.KeyShared)

    def loop() -> None:
        while True:
            message = consumer.receive()
            taken = Delivery.of(message, consumer, size=footprint(message.data()))
            inbox.apply(handler, [taken.event(Envelopes())])
            consumer.acknowledge(message)

    threads = [threading.Thread(target=loop) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
