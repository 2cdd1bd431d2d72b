"""The consumer worker off the main road: order, numbers, depth, revoked tasks, private text."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import orjson
import pytest
from celery import Celery

from tests.shops import Shop
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site


@pytest.fixture
def shop(pulsar_site: Site) -> Shop:
    """Lend a shop on real Pulsar."""
    return Shop(pulsar_site)


@pytest.mark.usefixtures("each_type")
def test_order_is_kept_by_what_key_shared_goes_by(shop: Shop) -> None:
    """The ordering key where there is one, whatever the partition keys; retries included."""
    for number in range(400):
        payload = orjson.dumps({"name": "Ordered", "data": {"number": number}})
        shop.producer.send_async(
            payload,
            None,
            properties={"id": uuid.uuid4().hex},
            partition_key=f"k{number}",
            ordering_key=f"o{number % 4}",
        )
    shop.producer.flush()
    workers = [shop.worker(), shop.worker()]
    for worker in workers:
        worker.wait_for("Consuming ")
    wait_until(
        lambda: sum(len(shop.seen(key=f"o{n}")) for n in range(4)) == 400,
        description="all are handled",
        seconds=60,
    )
    for n in range(4):
        assert shop.seen(key=f"o{n}") == list(range(n, 400, 4))
    assert [worker.stop() for worker in workers] == [0, 0]


@pytest.mark.parametrize("payloads", ["0", "1"])
def test_what_is_nested_deeply_stops_nothing(shop: Shop, payloads: str) -> None:
    """Also where it is to be shown; and long integers arrive as they are."""
    worker = shop.worker(POSTROOM_SHOW_PAYLOADS=payloads)
    depths = (90, 500, 990, 1010, 1020)
    for depth in depths:
        deep = b'{"number": 1, "a": ' + b'{"a": ' * depth + b"1" + b"}" * depth + b"}"
        shop.send_raw(b'{"name": "Counted", "data": ' + deep + b"}", key="k")
    shop.send("Counted", 2, key="k")
    assert shop.wait_for(len(depths) + 1) == [1] * len(depths) + [2]
    assert "again in" not in worker.text()
    shop.dead(0)


@pytest.mark.usefixtures("each_type")
def test_a_revoked_event_that_is_put_back_is_handled(shop: Shop) -> None:
    """By the worker that has revoked it, and remembers that."""
    worker = shop.worker()
    worker.wait_for("Consuming ")
    event_id = shop.send("Parked", 5, key="k")
    tries = shop.site.database["tries"]
    wait_until(lambda: tries.count_documents({}) == 1, description="it has failed once")
    redis = shop.site.environment["POSTROOM_REDIS_URL"]
    Celery("control", broker=redis).control.revoke(event_id, reply=True, timeout=5)
    (letter,) = shop.dead(1)
    assert "revoked" in letter.properties()["dead-letter-reason"]
    shop.site.database["mended"].insert_one({})
    assert shop.command("dead-letters", "redrive") == "1 put back, 0 left.\n"
    assert shop.wait_for(1) == [5]
    assert worker.stop() == 0


def test_no_private_text_is_anywhere(shop: Shop) -> None:
    """What libraries quote is in no log, listing, dead letter or request; own words are."""
    worker = shop.worker()
    private = "Jane-Doe-of-ward-7"
    payload = orjson.dumps({"name": "Quoted", "data": {"number": private}})
    ways = ("bson", "id", "int", "key", "own")
    for way in ways:
        properties = {"id": uuid.uuid4().hex, "way": way}
        shop.producer.send(payload, properties=properties, partition_key=way)
    shop.send("Counted", private)
    letters = {letter.properties()["way"]: letter for letter in shop.dead(len(ways))}
    shop.wait_for(1)
    reasons = {way: letter.properties()["dead-letter-reason"] for way, letter in letters.items()}
    assert "the words of the application" in reasons["own"]
    for way, kind in (("bson", "InvalidDocument"), ("id", "InvalidId"), ("int", "ValueError")):
        assert reasons[way].startswith(f"{kind} (at tests.shop:")
    worker.wait_for("About to run")
    listed = shop.command("dead-letters", "list", "--json")
    for text in (worker.text(), repr(reasons), listed):
        assert private not in text
