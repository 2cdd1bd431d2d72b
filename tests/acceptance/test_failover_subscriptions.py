"""Failover subscriptions: one worker at a time reads a topic, or a topic partition."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.shops import Shop
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pulsar

    from tests.site import Site

pytestmark = pytest.mark.pulsar

FAILOVER = {"POSTROOM_SUBSCRIPTION_TYPE": "failover"}
KEYS = 12


@pytest.fixture(params=[0, 3], ids=["unpartitioned", "partitioned"])
def shop(request: pytest.FixtureRequest, pulsar_site: Site) -> Shop:
    """Lend a shop on real Pulsar, whose topic has so many topic partitions."""
    if request.param:
        pulsar_site.admin("PUT", "/partitions", body=b"%d" % request.param)
    return Shop(pulsar_site)


@contextlib.contextmanager
def batching(shop: Shop) -> Iterator[pulsar.Producer]:
    """Lend a producer whose batches hold whatever keys come, as the relay's do."""
    producer = shop.site.pulsar.create_producer(
        shop.site.topic,
        batching_enabled=True,
        batching_max_publish_delay_ms=20,
        block_if_queue_full=True,
    )
    yield producer
    producer.close()


def send(producer: pulsar.Producer, numbers: range) -> None:
    """Send an event of each number to each key, those of one number in one batch."""
    for number in numbers:
        for key in range(KEYS):
            payload = orjson.dumps({"name": "Counted", "data": {"number": number}})
            properties = {"id": f"{key}-{number}"}
            producer.send_async(payload, None, properties=properties, partition_key=f"k{key}")
    producer.flush()


def all_in_order(shop: Shop, count: int) -> bool:
    """Say whether each key's numbers have come up to this one, once and in order."""
    expected = list(range(count))
    return all(shop.seen(key=f"k{key}") == expected for key in range(KEYS))


def test_a_batch_of_many_keys_is_handled_in_the_order_of_each(shop: Shop) -> None:
    """Two workers share the topic partitions; one that is killed in the middle loses nothing."""
    first, second = shop.worker(**FAILOVER), shop.worker(**FAILOVER)
    for worker in (first, second):
        worker.wait_for("Consuming ")
    with batching(shop) as producer:
        send(producer, range(30))
        first.kill()
        send(producer, range(30, 60))
    wait_until(lambda: all_in_order(shop, 60), description="all keys are handled", seconds=60)
    assert second.stop() == 0


def test_a_retried_event_holds_up_its_key_and_no_other(shop: Shop) -> None:
    """Held keys, later attempts, dead letters and redrive are as they are for Key_Shared."""
    worker = shop.worker(**FAILOVER)
    worker.wait_for("Consuming ")
    with batching(shop) as producer:
        broken = orjson.dumps({"name": "Broken", "data": {"number": -1}})
        producer.send_async(broken, None, properties={"id": "broken"}, partition_key="k0")
        send(producer, range(5))
    wait_until(lambda: all_in_order(shop, 5), description="all keys are handled")
    assert len(shop.dead(1)) == 1
    shop.site.database["mended"].insert_one({})
    assert "1" in shop.command("dead-letters", "redrive")
    assert shop.wait_for(1, "broken") == [-1]


def test_a_dead_letter_is_stored_once_while_its_batch_is_delivered_again(pulsar_site: Site) -> None:
    """A batch is done with as a whole, and one of its events is at work for seconds."""
    shop = Shop(pulsar_site)
    worker = shop.worker(**FAILOVER, SHOP_LONG_SECONDS="5")
    worker.wait_for("Consuming ")
    with batching(shop) as producer:
        for name in ("Rejected", "Long"):
            payload = orjson.dumps({"name": name, "data": {"number": 0}})
            producer.send_async(payload, None, properties={"id": name}, partition_key=name)
        producer.flush()
        shop.wait_for(1, "long")
        shop.send("Rejected", event_id="the last one")
    assert [letter.properties()["id"] for letter in shop.dead(2)] == ["Rejected", "the last one"]


def test_a_subscription_of_another_type_is_waited_for_and_said(shop: Shop) -> None:
    """While workers of the type before are connected, those of the other wait, and say so."""
    before = shop.worker()
    before.wait_for("Consuming ")
    after = shop.worker(**FAILOVER)
    after.wait_for("is not read for the subscription 'test' (ConsumerBusy")
    assert before.stop() == 0
    with batching(shop) as producer:
        send(producer, range(3))
    wait_until(lambda: all_in_order(shop, 3), description="all keys are handled")
