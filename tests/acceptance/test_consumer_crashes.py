"""Workers that end while handlers run: who is to blame, and who is not."""

from __future__ import annotations

import functools
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from postroom import wire
from tests.shops import Shop
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site, Worker

ENDS = {"Crash": "by its own hand", "Fault": "nobody knows by whose hand"}
MOST_WORKERS = 12


@pytest.fixture
def shop(pulsar_site: Site) -> Shop:
    """Lend a shop on real Pulsar."""
    return Shop(pulsar_site)


def started(shop: Shop, name: str, count: int, *, times: int) -> None:
    """Wait until handlers have been called so often in all."""
    tries = shop.site.database["tries"]
    wait_until(
        lambda: sum(row["n"] for row in tries.find()) >= count * times,
        description=f"{name} runs for the {times}. time",
        seconds=60,
    )


def run_until_parked(shop: Shop, **variables: str) -> Worker:
    """Start workers, one after another as a supervisor does, until an event is given up."""

    def settled(worker: Worker) -> bool:
        return worker.process.poll() is not None or "became a dead letter" in worker.text()

    for _ in range(MOST_WORKERS):
        worker = shop.worker(**variables)
        wait_until(
            functools.partial(settled, worker), description="it ends, or gives up", seconds=90
        )
        if worker.process.poll() is None:
            return worker
    raise AssertionError(f"{MOST_WORKERS} workers ended")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", ENDS)
def test_of_those_beside_it_only_the_one_that_ends_workers_is_given_up(
    shop: Shop, end: str
) -> None:
    """Slow good events run beside it each time; suspects run alone, so that it is found."""
    for number in range(3):
        shop.send("Long", number)
    shop.send(end)
    worker = run_until_parked(shop, POSTROOM_CONCURRENCY="4", SHOP_LONG_SECONDS="2")
    (letter,) = shop.dead(1)
    assert letter.properties()["dead-letter-handler"] == f"shop.{end.lower()}"
    assert ENDS[end] in letter.properties()["dead-letter-reason"]
    shop.send("Counted", 9)
    shop.wait_for(4)
    assert sorted(shop.seen("long")) == [0, 1, 2]
    assert worker.stop() == 0


@pytest.mark.usefixtures("each_type")
@pytest.mark.timeout(300)
def test_a_worker_killed_from_outside_is_not_the_events_fault(shop: Shop) -> None:
    """Killed twice as often as the handler has attempts, it is handled in the end."""
    shop.send("Long", 1, key="k")
    for times in range(1, 5):
        worker = shop.worker(SHOP_LONG_SECONDS="4")
        started(shop, "it", 1, times=times)
        worker.kill()
    shop.worker(SHOP_LONG_SECONDS="0.1")
    shop.wait_for(1)
    shop.send("Counted", 2)
    assert shop.wait_for(2) == [1, 2]
    shop.dead(0)


def test_what_came_behind_a_worker_leaves_no_trace(shop: Shop) -> None:
    """No worker that has ended can have had it. What waited may be what ends workers."""

    def traces(event_id: str) -> int:
        query = {f"{wire.BegunField.ID}.{wire.InboxField.EVENT_ID}": event_id}
        return shop.site.database[wire.BEGUN].count_documents(query)

    waited = shop.send("Long", 1)
    shop.worker(SHOP_LONG_SECONDS="1")
    started(shop, "what waited", 1, times=1)
    assert traces(waited) == 1
    assert shop.wait_for(1) == [1]
    came = shop.send("Long", 2)
    started(shop, "what came", 2, times=1)
    assert traces(came) == 0
    assert shop.wait_for(2) == [1, 2]


@pytest.mark.usefixtures("each_type")
@pytest.mark.timeout(400)
def test_one_hot_document_burns_no_attempts(shop: Shop) -> None:
    """Contenders of two handlers queue, on two workers: each event is applied once, by few runs."""
    count = 60
    workers = [shop.worker(SHOP_HOT_SECONDS="0.5") for _ in range(2)]
    for worker in workers:
        worker.wait_for("Consuming ")
    for number in range(count):
        shop.send("Hot" if number % 2 else "Hotter", number)
    for number in range(20):
        shop.send("Counted", 1000 + number, key=f"k{number}")
    wait_until(lambda: len(shop.seen("note")) == 20, description="others go on", seconds=15)
    wait_until(
        lambda: len(shop.seen(key="hot")) == count,
        description="all are applied",
        seconds=200,
    )
    assert sorted(shop.seen(key="hot")) == list(range(count))
    runs = shop.site.database["runs"].count_documents({})
    assert runs < 10 * count, runs
    shop.dead(0)


def test_a_worker_that_stood_still_blames_no_handler(lite_site: Site) -> None:
    """Frozen for longer than the handler's timeout, it goes on, and no attempt is burned."""
    shop = Shop(lite_site)
    worker = shop.worker(SHOP_LONG_SECONDS="6", POSTROOM_HANDLER_TIMEOUT_SECONDS="4")
    shop.send("Long", 1)
    tries = lite_site.database["tries"]
    wait_until(lambda: tries.count_documents({}) == 1, description="the handler is at work")
    worker.signal(signal.SIGSTOP)
    threading.Event().wait(5)
    worker.signal(signal.SIGCONT)
    assert shop.wait_for(1) == [1]
    assert [row["n"] for row in tries.find()] == [1]
    assert "ran past its timeout" not in worker.text()
    assert worker.stop() == 0
