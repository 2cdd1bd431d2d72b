"""Events of several keys share batches where all who read the topic keep the order of each."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pulsar
import pytest

from postroom import Outbox
from postroom.relay.sending import audience
from tests.relays import relaying
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.site import Site

pytestmark = pytest.mark.pulsar

KEYS = 5


@contextlib.contextmanager
def reading(site: Site, name: str, kind: Any) -> Iterator[pulsar.Consumer]:
    """Lend a consumer of some type."""
    consumer = site.pulsar.subscribe(
        site.topic,
        name,
        consumer_type=kind,
        initial_position=pulsar.InitialPosition.Earliest,
    )
    yield consumer
    consumer.close()


def publish(site: Site, first: int, count: int = 20) -> None:
    """Publish so many events for each key in one transaction, numbered."""
    events: list[dict[str, Any]] = [
        {"name": "Counted", "data": {"number": number, "of": f"k{key}"}}
        for number in range(first, first + count)
        for key in range(KEYS)
    ]
    Outbox(site.database, key="of").publish(events)


def batches(site: Site, consumer: pulsar.Consumer, first: int, count: int = 20) -> int:
    """Publish, receive that in the order of each key, and return how many entries it came in."""
    publish(site, first, count)
    messages = site.receive(consumer, count * KEYS)
    seen: dict[str, list[int]] = {}
    for message in messages:
        seen.setdefault(message.partition_key(), []).append(int(message.properties()["position"]))
        consumer.acknowledge(message)
    assert len(seen) == KEYS
    assert all(numbers == sorted(set(numbers)) for numbers in seen.values())
    return len({(m.message_id().ledger_id(), m.message_id().entry_id()) for m in messages})


def test_keys_share_batches_where_every_declared_subscription_is_failover(
    pulsar_site: Site,
) -> None:
    """No setting is needed for it, and none of it happens where nothing is declared."""
    with (
        reading(pulsar_site, "ours", pulsar.ConsumerType.Failover) as consumer,
        relaying(pulsar_site, failover=("ours",)),
    ):
        assert batches(pulsar_site, consumer, 0) < 20
    with (
        reading(pulsar_site, "ours", pulsar.ConsumerType.Failover) as consumer,
        relaying(pulsar_site),
    ):
        assert batches(pulsar_site, consumer, 20) == 100


def test_a_key_shared_subscription_of_somebody_else_is_named_and_respected(
    pulsar_site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There at the start, or met by a later look: no batch holds several keys until it is gone."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(audience, "LOOK_SECONDS", 0.2)
    stranger = reading(pulsar_site, "theirs", pulsar.ConsumerType.KeyShared)
    with (
        reading(pulsar_site, "ours", pulsar.ConsumerType.Failover) as consumer,
        stranger as theirs,
        relaying(pulsar_site, failover=("ours",)),
    ):
        assert batches(pulsar_site, consumer, 0) == 100
        assert (
            f"{pulsar_site.topic} is also read by 'theirs', of the type Key_Shared" in caplog.text
        )
        theirs.unsubscribe()
        wait_until(lambda: "share batches" in caplog.text, description="it is gone")
        wait_until(
            lambda: batches(pulsar_site, consumer, 20) < 20, description="batches of many keys"
        )
        caplog.clear()
        with reading(pulsar_site, "theirs", pulsar.ConsumerType.KeyShared):
            wait_until(lambda: "is also read by 'theirs'" in caplog.text, description="it is seen")
            wait_until(lambda: batches(pulsar_site, consumer, 40) == 100, description="one by one")


def test_where_the_admin_interface_does_not_answer_the_declaration_counts(
    pulsar_site: Site,
) -> None:
    """Nothing waits for it, and what is declared is believed."""
    with (
        reading(pulsar_site, "ours", pulsar.ConsumerType.Failover) as consumer,
        relaying(pulsar_site, failover=("ours",), pulsar_admin_url="http://127.0.0.1:9"),
    ):
        assert batches(pulsar_site, consumer, 0) < 20
