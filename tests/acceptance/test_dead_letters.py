"""Dead letters: all are stored in the end, and what cannot be stored now holds up nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pulsar
import pytest

from tests.shops import Shop
from tests.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from devstack.brokers import Pulsar
    from tests.site import Site

pytestmark = pytest.mark.pulsar


@pytest.fixture
def shop(pulsar_site: Site) -> Shop:
    """Lend a shop on real Pulsar."""
    return Shop(pulsar_site)


def dead_topic(shop: Shop) -> str:
    """Name the topic of the shop's dead letters."""
    return f"{shop.site.topic}-test-DLQ"


def fails(shop: Shop, worker_says: str, *, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until the status names what is wrong with the dead letters."""
    wait_until(
        lambda: worker_says in shop.troubles(),
        description=f"{worker_says} is shown",
        seconds=seconds,
    )


@pytest.mark.usefixtures("each_type")
def test_a_giant_in_a_burst_of_small_ones_stops_nothing(shop: Shop, pulsar_server: Pulsar) -> None:
    """199 rejected events, then one that is 12 MiB without its compression, a frozen broker."""
    worker = shop.worker()
    # A broker hands out nothing for a second after the first consumer of a Failover topic has come.
    shop.send("Counted", 0)
    shop.wait_for(1)
    for number in range(199):
        payload = orjson.dumps({"name": "Rejected", "data": {"number": number}})
        shop.producer.send_async(payload, None, properties={"id": f"r{number}"})
    shop.producer.flush()
    packed = shop.site.pulsar.create_producer(
        shop.site.topic, compression_type=pulsar.CompressionType.LZ4
    )
    giant = orjson.dumps({"name": "Rejected", "data": {"text": "x" * (12 << 20)}})
    packed.send(giant, properties={"id": "giant"})
    pulsar_server.freeze()
    try:
        wait_until(lambda: shop.status().get("held"), description="letters are on their way")
    finally:
        pulsar_server.thaw()
    shop.send("Counted", 1)
    assert shop.wait_for(2) == [0, 1]
    letters = shop.dead(200)
    assert {m.properties()["id"] for m in letters} == {"giant", *(f"r{n}" for n in range(199))}
    assert max(len(m.data()) for m in letters) == len(giant)
    assert worker.stop() == 0


@pytest.mark.usefixtures("each_type")
def test_a_terminated_dead_letter_topic_holds_up_no_good_event(shop: Shop) -> None:
    """What is given up waits and is named, its key behind it; all others are handled."""
    shop.site.pulsar.create_producer(dead_topic(shop)).close()
    shop.site.admin("POST", "/terminate", topic=dead_topic(shop))
    worker = shop.worker()
    shop.send("Rejected", 0, key="a")
    shop.send("Counted", 1, key="a")
    shop.send("Counted", 2, key="b")
    assert shop.wait_for(1) == [2]
    fails(shop, f"The dead-letter topic {dead_topic(shop)} did not take")
    assert "TopicTerminated" in shop.troubles()
    worker.wait_for("TopicTerminated")
    for number in range(3, 20):
        shop.send("Counted", number, key="b")
    assert shop.wait_for(18) == [2, *range(3, 20)]
    shop.site.admin("DELETE", "?force=true", topic=dead_topic(shop))
    assert shop.wait_for(19, seconds=90)[-1] == 1
    assert len(shop.dead(1)) == 1
    wait_until(lambda: not shop.troubles(), description="all is well")


def test_where_no_topic_can_be_made_dead_letters_wait(shop: Shop) -> None:
    """A namespace in which topics are made by hand: the missing one is named, and made later."""
    namespace = f"public/{shop.site.name}"
    topic = f"persistent://{namespace}/in"
    shop.site.admin_namespace(namespace, "autoTopicCreation", {"allowAutoTopicCreation": False})
    shop.site.admin("PUT", "", topic=topic)
    shop.producer = shop.site.pulsar.create_producer(topic)
    worker = shop.worker(SHOP_TOPICS=topic)
    shop.send("Rejected", 0, key="a")
    shop.send("Counted", 1, key="b")
    assert shop.wait_for(1) == [1]
    fails(shop, f"{topic}-test-DLQ")
    assert "TopicNotFound" in shop.troubles()
    assert "create it" in shop.troubles()
    shop.site.admin("PUT", "", topic=f"{topic}-test-DLQ")
    wait_until(lambda: shop.status()["dead_letters"] == 1, description="it is stored", seconds=90)
    assert worker.stop() == 0


def test_a_full_dead_letter_topic_holds_up_no_good_event(shop: Shop) -> None:
    """Its quota is used up: letters wait until there is room."""
    namespace = f"public/{shop.site.name}"
    dead = f"persistent://{namespace}/dead"
    shop.site.admin_namespace(
        namespace,
        "backlogQuota?backlogQuotaType=destination_storage",
        {"limitSize": 10, "limit": 10, "policy": "producer_exception"},
    )
    shop.site.subscribe("full", dead).close()
    filling = shop.site.pulsar.create_producer(dead)
    filling.send(b"x" * 1000)
    filling.close()
    shop.worker(POSTROOM_DEAD_LETTER_TOPIC=f"{namespace}/dead")
    shop.send("Rejected", 0, key="a")
    shop.send("Counted", 1, key="b")
    assert shop.wait_for(1) == [1]
    fails(shop, "ProducerBlockedQuotaExceeded")
    shop.site.admin_namespace(
        namespace,
        "backlogQuota?backlogQuotaType=destination_storage",
        {"limitSize": 10**9, "limit": 10**9, "policy": "producer_exception"},
    )
    wait_until(lambda: shop.status()["dead_letters"] == 1, description="it is stored", seconds=90)


def test_a_letter_that_is_too_large_for_its_topic_waits_alone(policies_site: Site) -> None:
    """The topic takes small ones: they are stored, and it is said how large the other one is."""
    shop = Shop(policies_site)
    shop.site.pulsar.create_producer(dead_topic(shop)).close()
    shop.site.admin("POST", "/maxMessageSize", topic=dead_topic(shop), body=b"4000")
    worker = shop.worker(POSTROOM_SEND_TIMEOUT_SECONDS="8")
    worker.wait_for("Consuming ")
    shop.send("Rejected", "small", key="a")
    wait_until(lambda: shop.status().get("dead_letters") == 1, description="one is stored")
    shop.send("Rejected", "x" * 20_000, key="b")
    for number in range(20):
        shop.send("Rejected", number, key="c")
        shop.send("Counted", number, key="d")
    assert shop.wait_for(20) == list(range(20))
    wait_until(lambda: shop.status()["dead_letters"] == 21, description="small ones", seconds=60)
    fails(shop, "a letter of 20,")
    shop.site.admin("DELETE", "/maxMessageSize", topic=dead_topic(shop))
    wait_until(lambda: shop.status()["dead_letters"] == 22, description="the large one", seconds=90)
    assert worker.text().count("again in") == 0


@pytest.mark.usefixtures("each_type")
def test_when_too_many_letters_wait_nothing_more_is_received(shop: Shop) -> None:
    """Memory is bounded by POSTROOM_PREFETCH, and it is said that it is full."""
    shop.site.pulsar.create_producer(dead_topic(shop)).close()
    shop.site.admin("POST", "/terminate", topic=dead_topic(shop))
    for number in range(30):
        shop.send("Rejected", number)
    shop.worker(POSTROOM_PREFETCH="10")
    fails(shop, "nothing is received")
    # What is held is told four times a second, what stands still more often.
    wait_until(lambda: shop.status()["held"] == 10, description="as many as may be", seconds=5)
    shop.site.admin("DELETE", "?force=true", topic=dead_topic(shop))
    wait_until(lambda: shop.status()["dead_letters"] == 30, description="all", seconds=90)


def test_a_worker_whose_letters_wait_stops_in_time(shop: Shop) -> None:
    """What waits is handed back, and becomes a dead letter of the next worker."""
    shop.site.pulsar.create_producer(dead_topic(shop)).close()
    shop.site.admin("POST", "/terminate", topic=dead_topic(shop))
    worker = shop.worker()
    shop.send("Rejected", 0, key="a")
    fails(shop, "TopicTerminated")
    assert worker.stop() == 0
    shop.site.admin("DELETE", "?force=true", topic=dead_topic(shop))
    shop.worker()
    assert len(shop.dead(1)) == 1


def test_a_dead_letter_topic_may_be_partitioned(shop: Shop) -> None:
    """As a broker makes topics that is told so; and the topic through which letters come back."""
    for topic, count in ((dead_topic(shop), 3), (f"{shop.site.topic}-test-REDRIVE", 2)):
        shop.site.admin("PUT", "/partitions", topic=topic, body=str(count).encode())
    worker = shop.worker()
    for number in range(6):
        shop.send("Rejected", number, key=f"k{number}")
    wait_until(lambda: shop.status().get("dead_letters") == 6, description="all are stored")
    assert "6 dead letters" in shop.command("dead-letters", "list")
    assert shop.command("dead-letters", "redrive") == "6 put back, 0 left.\n"
    wait_until(lambda: shop.status().get("dead_letters") == 12, description="they came back")
    assert "6 dead letters" in shop.command("dead-letters", "list")
    assert shop.troubles() == ""
    assert worker.stop() == 0
