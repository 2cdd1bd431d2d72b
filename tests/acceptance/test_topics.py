"""What a subscription reads: each topic on its own, none standing still without a word."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import orjson
import pulsar
import pytest

from tests.shops import Shop
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.site import Site

pytestmark = pytest.mark.pulsar


@pytest.fixture
def shop(pulsar_site: Site) -> Shop:
    """Lend a shop on real Pulsar."""
    return Shop(pulsar_site)


def send(shop: Shop, topic: str, number: int) -> None:
    """Send an event of the shop to a topic."""
    producer = shop.site.pulsar.create_producer(topic)
    payload = orjson.dumps({"name": "Counted", "data": {"number": number}})
    producer.send(payload, properties={"id": f"{topic}-{number}"}, partition_key="k")
    producer.close()


def wait_for_received(shop: Shop, count: int) -> None:
    """Wait until the worker has received so many messages, some of them twice."""
    wait_until(lambda: shop.status()["received"] >= count, description=f"{count} are received")


def hold(shop: Shop, topic: str) -> pulsar.Consumer:
    """Hold the worker's subscription on a topic, as a consumer of another kind does."""
    return shop.site.pulsar.subscribe(
        topic, "test", initial_position=pulsar.InitialPosition.Earliest
    )


@pytest.mark.usefixtures("each_type")
@pytest.mark.parametrize("named", [True, False], ids=["named", "pattern"])
def test_a_topic_that_another_holds_is_read_once_it_is_free(shop: Shop, *, named: bool) -> None:
    """The others are read meanwhile; it is said which topic, which subscription and why."""
    north, south = (f"{shop.site.topic}-{name}" for name in ("north", "south"))
    holder = hold(shop, north)
    send(shop, south, 1)
    topics = f"{north} {south}" if named else f"re:{shop.site.topic}-.*"
    worker = shop.worker(SHOP_TOPICS=topics)
    assert shop.wait_for(1) == [1]
    worker.wait_for(f"The topic {north} is not read for the subscription 'test' (ConsumerBusy")
    assert north in shop.troubles()
    holder.close()
    send(shop, north, 2)
    assert shop.wait_for(2) == [1, 2]
    assert worker.text().count("ConsumerBusy") == 1
    wait_until(lambda: not shop.status()["troubles"], description="all is well")


def test_a_topic_that_a_pattern_finds_later_may_be_held_too(shop: Shop) -> None:
    """New topics are found within a minute; one that is held at that moment is not forgotten."""
    send(shop, f"{shop.site.topic}-north", 1)
    worker = shop.worker(SHOP_TOPICS=f"re:{shop.site.topic}-.*")
    shop.wait_for(1)
    holder = hold(shop, f"{shop.site.topic}-south")
    send(shop, f"{shop.site.topic}-east", 2)
    shop.wait_for(2, seconds=45)
    worker.wait_for("ConsumerBusy", seconds=45)
    holder.close()
    send(shop, f"{shop.site.topic}-south", 3)
    assert shop.wait_for(3) == [1, 2, 3]


@pytest.mark.parametrize(("kind", "size"), [("key_shared", 20), ("failover", 200)])
def test_what_nobody_here_can_decrypt_becomes_a_dead_letter(
    shop: Shop, tmp_path: Path, kind: str, size: int
) -> None:
    """Batches of it too, which the client counts as one message each; what follows is handled."""
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genrsa", "-out", private, "2048"], check=True)
    subprocess.run(["openssl", "rsa", "-in", private, "-pubout", "-out", public], check=True)
    sealed = shop.site.pulsar.create_producer(
        shop.site.topic,
        encryption_key="k",
        crypto_key_reader=pulsar.CryptoKeyReader(str(public), str(private)),
        batching_enabled=True,
        batching_max_messages=size,
        batching_max_publish_delay_ms=1000,
    )
    for _ in range(400):
        sealed.send_async(b'{"name": "Counted", "data": {"number": 1}}', None, partition_key="k")
    sealed.flush()
    worker = shop.worker(POSTROOM_SUBSCRIPTION_TYPE=kind)
    shop.send("Counted", 2, key="k")
    assert shop.wait_for(1) == [2]
    letters = shop.dead(400 // size)
    assert {m.properties()["dead-letter-reason"] for m in letters} == {
        "The message is encrypted, and consumers here have no key"
    }
    assert worker.stop() == 0


@pytest.mark.usefixtures("each_type")
def test_an_own_dead_letter_topic_within_the_pattern_is_not_consumed(shop: Shop) -> None:
    """Poison does not go round, and nothing gets dead letters of dead letters."""
    dead = f"{shop.site.topic}-given-up"
    shop.site.pulsar.create_producer(f"{shop.site.topic}-in")
    send(shop, f"{shop.site.topic}-in", 1)
    shop.site.pulsar.create_producer(f"{shop.site.topic}-in").send(b"poison")
    shop.worker(
        SHOP_TOPICS=f"re:{shop.site.topic}.*",
        POSTROOM_DEAD_LETTER_TOPIC=dead.removeprefix("persistent://"),
    )
    shop.wait_for(1)
    watch = shop.site.subscribe("watch", dead)
    assert len(shop.site.receive(watch, 1)) == 1
    shop.send("Counted", 2)
    shop.wait_for(2)
    wait_until(lambda: shop.status()["held"] == 0, description="all is done")
    assert shop.status()["dead_letters"] == 1
    assert shop.site.receive(watch, 0) == []
    names = orjson.loads(shop.site.admin("GET", "", topic="public/default"))
    assert not [name for name in names if shop.site.topic in name and "DLQ" in name]


@pytest.mark.parametrize("ending", ["-test-DLQ", "-test-REDRIVE", "-given-up"])
def test_naming_a_topic_of_dead_letters_is_refused(shop: Shop, ending: str) -> None:
    """The worker does not start, and says why."""
    worker = shop.worker(
        SHOP_TOPICS=f"{shop.site.topic} {shop.site.topic}{ending}",
        POSTROOM_DEAD_LETTER_TOPIC=f"public/default/{shop.site.name}-given-up",
    )
    assert worker.exit_code() != 0
    assert f"cannot consume {shop.site.topic}{ending}" in worker.text()
    assert "Traceback" not in worker.text()


def test_topic_partitions_that_are_added_later_are_read(shop: Shop) -> None:
    """Each is read on its own; their dead letters and what comes back have the topic's names."""
    topic = f"{shop.site.topic}-parts"
    shop.site.admin("PUT", "/partitions", topic=topic, body=b"2")
    shop.worker(SHOP_TOPICS=topic)
    for part in range(2):
        send(shop, f"{topic}-partition-{part}", part)
    shop.wait_for(2)
    shop.site.admin("POST", "/partitions", topic=topic, body=b"3")
    send(shop, f"{topic}-partition-2", 2)
    assert sorted(shop.wait_for(3, seconds=45)) == [0, 1, 2]


def test_many_topics_share_one_queue(shop: Shop) -> None:
    """What the client may hold is bounded for all topics together; most share a thread, too."""
    topics = [f"{shop.site.topic}-{number}" for number in range(70)]
    for number, topic in enumerate(topics):
        send(shop, topic, number)
    shop.worker(SHOP_TOPICS=f"re:{shop.site.topic}-.*")
    shop.wait_for(70, seconds=60)
    permits = [
        consumer["availablePermits"]
        for topic in topics
        for consumer in orjson.loads(shop.site.admin("GET", "/stats", topic=topic))[
            "subscriptions"
        ]["test"]["consumers"]
    ]
    assert len(permits) == 70
    assert sum(permits) <= 100


def test_chunked_messages_arrive_over_reconnects(shop: Shop) -> None:
    """A connection that breaks between two chunks costs no message."""
    producer = shop.site.pulsar.create_producer(shop.site.topic, chunking_enabled=True)
    hold(shop, shop.site.topic).close()
    for number in range(16):
        data = {"number": number, "text": "x" * (11 << 20)}
        payload = orjson.dumps({"name": "Counted", "data": data})
        producer.send(payload, properties={"id": f"e{number}"}, partition_key="k")
    producer.close()
    worker = shop.worker()
    worker.wait_for("Consuming ")
    for seen in range(1, 7):
        with contextlib.suppress(OSError):
            shop.site.admin("PUT", "/unload")
        shop.wait_for(seen)
    assert shop.wait_for(16, seconds=60) == list(range(16))


@pytest.mark.usefixtures("each_type")
@pytest.mark.parametrize("partitions", [0, 3])
def test_what_is_received_is_bounded_over_reconnects(shop: Shop, partitions: int) -> None:
    """The client's queue does not grow with each connection, of topic partitions neither."""
    topic = f"{shop.site.topic}-bounded"
    if partitions:
        shop.site.admin("PUT", "/partitions", topic=topic, body=b"%d" % partitions)
    names = [f"{topic}-partition-{n}" for n in range(partitions)] or [topic]
    for name in names:
        hold(shop, name).close()
        producer = shop.site.pulsar.create_producer(name)
        payload = orjson.dumps({"name": "Slow", "data": {"number": 1}})
        for number in range(300):
            producer.send_async(payload, None, properties={"id": f"{name}-{number}"})
        producer.flush()
        producer.close()
    shop.worker(SHOP_TOPICS=topic, POSTROOM_PREFETCH="20", POSTROOM_CONCURRENCY="1")
    wait_until(lambda: shop.status().get("held") == 20, description="it holds what it may")
    for _ in range(4):
        more = shop.status()["received"] + 1
        for name in names:
            with contextlib.suppress(OSError):
                shop.site.admin("PUT", "/unload", topic=name)
        wait_for_received(shop, more)
    unacknowledged = sum(
        orjson.loads(shop.site.admin("GET", "/stats", topic=name))["subscriptions"]["test"][
            "unackedMessages"
        ]
        for name in names
    )
    # What is held, what the queues may hold, and one on its way from each.
    assert unacknowledged <= 20 + 20 + len(names)
