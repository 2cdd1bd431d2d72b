"""What others send, and do to topics and subscriptions: schemas, batches, delays, ends."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import _pulsar
import orjson
import pulsar
import pytest
from pulsar import schema

from tests.shops import Shop
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site

pytestmark = pytest.mark.pulsar

AVRO = {
    "type": "record",
    "name": "Counted",
    "fields": [{"name": "name", "type": "string"}],
}


@pytest.fixture
def shop(pulsar_site: Site) -> Shop:
    """Lend a shop on real Pulsar."""
    return Shop(pulsar_site)


class Number(schema.Record):  # type: ignore[misc]  # pulsar has no types
    """What an event says."""

    number = schema.Integer()


class Counted(schema.Record):  # type: ignore[misc]
    """An event as a record of Pulsar's."""

    name = schema.String()
    data = Number()


class Written(schema.Schema):  # type: ignore[misc]
    """A schema that the broker knows of, for bytes that another program has encoded by it."""

    def __init__(self, kind: Any, definition: dict[str, Any]) -> None:
        self._record_cls = bytes
        self._schema_info = _pulsar.SchemaInfo(kind, "Counted", orjson.dumps(definition).decode())

    def encode(self, obj: bytes) -> bytes:
        """Return them as they are."""
        return obj


def payload(number: int) -> bytes:
    """Return an event of the shop."""
    return orjson.dumps({"name": "Counted", "data": {"number": number}})


def test_topics_with_schemas_are_read_by_their_bytes(shop: Shop) -> None:
    """JSON is an event whatever the schema says; what is none becomes a dead letter."""
    topics = [f"{shop.site.topic}-{kind}" for kind in ("json", "text", "avro")]
    forms = [
        schema.JsonSchema(Counted),
        schema.StringSchema(),
        Written(_pulsar.SchemaType.AVRO, AVRO),
    ]
    json, text, avro = (
        shop.site.pulsar.create_producer(topic, schema=form)
        for topic, form in zip(topics, forms, strict=True)
    )
    json.send(Counted(name="Counted", data=Number(number=1)), partition_key="k")
    text.send(payload(2).decode())
    avro.send(b"\x0eCounted", partition_key="k")
    avro.send(payload(3), partition_key="k")
    worker = shop.worker(SHOP_TOPICS=" ".join(topics))
    assert sorted(shop.wait_for(3)) == [1, 2, 3]
    letters = shop.site.subscribe("watch", f"{topics[2]}-test-DLQ")
    (letter,) = shop.site.receive(letters, 1)
    assert letter.data() == b"\x0eCounted"
    assert "not JSON" in letter.properties()["dead-letter-reason"]
    assert shop.troubles() == ""
    assert worker.stop() == 0


def test_batches_delays_and_odd_times_are_handled_and_acknowledged(shop: Shop) -> None:
    """Poison in a batch of many keys is alone in being parked, as is a message without a value."""
    worker = shop.worker()
    worker.wait_for("Consuming ")
    batching = shop.site.pulsar.create_producer(
        shop.site.topic, batching_enabled=True, batching_max_publish_delay_ms=100
    )
    for number in range(50):
        data = b"nonsense" if number == 25 else payload(number)
        batching.send_async(data, None, partition_key=f"k{number % 3}")
    batching.flush()
    shop.producer.send(payload(100), event_timestamp=1, partition_key="t")
    shop.producer.send(payload(101), deliver_after=timedelta(seconds=1), partition_key="k")
    shop.producer.send(payload(102), event_timestamp=2**63 - 1, partition_key="t")
    shop.producer.send(b"", partition_key="t")
    shop.producer.send(payload(103), partition_key="t", ordering_key="\x00\u00e9" * 100)
    shop.producer.send(payload(104), partition_key="t" * 60_000, properties={"": "", "a": "\n\x00"})
    expected = [n for n in range(50) if n != 25] + [100, 101, 102, 103, 104]
    assert sorted(shop.wait_for(len(expected))) == expected
    assert sorted(letter.data() for letter in shop.dead(2)) == [b"", b"nonsense"]

    def backlog() -> int:
        stats = orjson.loads(shop.site.admin("GET", "/stats"))
        return int(stats["subscriptions"]["test"]["msgBacklog"])

    wait_until(lambda: backlog() == 0, description="all is acknowledged")
    assert worker.stop() == 0


def test_a_subscription_with_fixed_hash_ranges_is_named_and_waited_for(shop: Shop) -> None:
    """As one of any other kind; once it is free, what was sent meanwhile is handled."""
    fixed = pulsar.ConsumerKeySharedPolicy(pulsar.KeySharedMode.Sticky, sticky_ranges=[(0, 65535)])
    holder = shop.site.pulsar.subscribe(
        shop.site.topic,
        "test",
        consumer_type=pulsar.ConsumerType.KeyShared,
        key_shared_policy=fixed,
    )
    worker = shop.worker()
    worker.wait_for(f"The topic {shop.site.topic} is not read for the subscription 'test'")
    for number in range(5):
        shop.send("Counted", number, key="k")
    holder.close()
    assert shop.wait_for(5) == [0, 1, 2, 3, 4]
    assert worker.stop() == 0


def test_a_subscription_none_of_whose_topics_is_read_is_waiting(shop: Shop) -> None:
    """That what comes back of its dead letters is read does not make it consuming."""
    holder = shop.site.subscribe("test")
    worker = shop.worker()
    worker.wait_for("ConsumerBusy")
    wait_until(lambda: shop.status().get("state") == "waiting", description="it says so")
    assert "ConsumerBusy" in shop.status()["reason"]
    assert "Consuming " not in worker.text()
    holder.close()
    shop.send("Counted", 1)
    assert shop.wait_for(1) == [1]
    worker.wait_for("Consuming ")
    wait_until(lambda: shop.status()["state"] == "consuming", description="it says so")


def test_topics_that_are_deleted_or_ended_meanwhile_hold_up_nothing(shop: Shop) -> None:
    """Nor a subscription that is deleted: what comes later is read, on all others too."""
    other = f"{shop.site.topic}-other"
    shop.site.pulsar.create_producer(other).send(payload(1))
    worker = shop.worker(SHOP_TOPICS=f"{shop.site.topic} {other}")
    shop.wait_for(1)
    for number, end in enumerate(("?force=true", "/subscription/test?force=true")):
        shop.site.admin("DELETE", end, topic=other)
        shop.send("Counted", 10 + number)
        shop.site.pulsar.create_producer(other).send(payload(20 + number))
        shop.wait_for(3 + 2 * number)
    shop.site.admin("POST", "/terminate", topic=other)
    shop.send("Counted", 30)
    assert sorted(shop.wait_for(6)) == [1, 10, 11, 20, 21, 30]
    wait_until(lambda: not shop.status()["troubles"], description="nothing stands still")
    assert worker.stop() == 0
