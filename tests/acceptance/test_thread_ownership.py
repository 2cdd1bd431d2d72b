"""What docstrings say of threads is so while relay and consumer work."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from postroom import Outbox
from tests.ownership import Ownership
from tests.shops import Shop

if TYPE_CHECKING:
    from tests.site import Site, Worker

WORKER = "celery -A tests.shop worker -Q {queue} --loglevel=INFO --include tests.owned"
OF_A_RELAY = {
    *("Brake", "Experience", "Flight", "Intents", "Joining", "KnownIds", "Landing"),
    *("Lane", "Lanes", "Marks", "Opening", "Outbound", "Outlet", "Replay"),
    *("Returning", "Rivals", "Saver", "Standing", "Tenure", "Upkeep", "Waiting"),
    *("DueRows", "Housekeeping", "LeftRows"),
}
OF_A_CONSUMER = {
    *("Applying", "Conflicts", "Elsewhere", "Hanging", "InHand", "Intake", "Parking"),
    *("Patience", "Schedule", "Tries", "Underway"),
}


def called(worker: Worker) -> set[str]:
    """Return what has been called in a worker that has stopped, all of it by one thread each."""
    worker.stop()
    (several,) = re.findall(r"Called by several: (.*)\.$", worker.text(), re.MULTILINE)
    assert several == "none"
    (each,) = re.findall(r"Called by one thread each: (.*)\.$", worker.text(), re.MULTILINE)
    return set(each.split())


def test_what_is_one_threads_is_called_by_one(pulsar_site: Site) -> None:
    """Rows, one of them poison and one due later; handlers that fail, hang and are given up."""
    site, shop = pulsar_site, Shop(pulsar_site)
    relay = site.start(WORKER.format(queue="relay"))
    consumer = site.start(WORKER.format(queue="consumer"))
    relay.wait_for("Relaying partition")
    outbox = Outbox(site.database, key="number")
    outbox.publish([{"name": "Counted", "data": {"number": number}} for number in range(20)])
    for number, name in enumerate(("Flaky", "Hang", "Rejected"), 20):
        outbox.publish({"name": name, "data": {"number": number}})
    soon = timedelta(seconds=0.5)
    outbox.publish({"name": "Counted", "data": {"number": 23}}, deliver_in=soon)
    site.outbox.insert_one({"partitionKey": "default", "data": 7})
    assert sorted(shop.wait_for(23)) == [*range(22), 23]
    shop.dead(1)
    assert OF_A_RELAY - called(relay) == set()
    assert OF_A_CONSUMER - called(consumer) == set()


def test_who_else_calls_is_named() -> None:
    """By what each called first; what docstrings leave free is anybody's."""

    class Steward:
        """Used by the pool's thread alone, but for is_pinned."""

        is_pinned = property(lambda _: True)

        def decide(self) -> None:
            """Decide."""

    seen = Ownership()
    seen.watch(Steward)
    one, other = Steward(), Steward()
    one.decide()
    other.decide()

    def call() -> None:
        assert one.is_pinned
        other.decide()

    thread = threading.Thread(target=call, name="another")
    thread.start()
    thread.join()
    assert seen.kinds == ["Steward"]
    assert seen.broken == ["Steward: decide by MainThread, decide by another"]
