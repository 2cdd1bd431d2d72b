"""What the broker refuses, on real Apache Pulsar: nothing is lost, and nothing overtakes it."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.error
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pulsar.schema import JsonSchema, Record, String

from postroom import wire
from postroom.store.quarantine import Quarantine
from postroom.store.values import DEFAULT_PARTITION
from tests.conftest import addresses
from tests.relays import relaying, saved
from tests.site import Site, ids, row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devstack.brokers import Pulsar

DEAD = "http://127.0.0.1:9"


def sized(number: int, size: int, **fields: Any) -> dict[str, Any]:
    """Return a row of about so many bytes."""
    made = row(number) | fields
    made["data"]["data"]["text"] = "x" * size
    return made


def set_policy(site: Site, name: str, value: Any, *, topic: str | None = None) -> None:
    """Give a topic a policy of its own, and wait until it has it."""
    with contextlib.suppress(urllib.error.HTTPError):
        site.admin("PUT", "", topic=topic)
    site.admin("POST", f"/{name}", topic=topic, body=json.dumps(value).encode())
    wait_until(lambda: site.admin("GET", f"/{name}", topic=topic), description=f"{name} is set")


def quarantined(site: Site) -> dict[str, str]:
    """Return the reasons of the rows in quarantine by id."""
    return {str(e["_id"]): e["reason"] for e in site.database[wire.QUARANTINE].find()}


def id_of(made: dict[str, Any]) -> str:
    """Return a row's id as messages bear it."""
    return str(made["_id"])


@pytest.mark.parametrize("admin", [True, False])
def test_a_row_that_a_policy_refuses_is_set_aside_by_name_and_the_rest_flows(
    policies_site: Site, *, admin: bool
) -> None:
    """Keyed rows, one of them larger than the topic takes; others follow at once and then later."""
    site = policies_site
    plain = site.subscribe()
    rows = [sized(n, size, key="k") for n, size in enumerate((10, 100_000, 10, 10))]
    changes: dict[str, Any] = {} if admin else {"pulsar_admin_url": DEAD}
    with relaying(site, **changes):
        first = site.insert(1)
        saved(site, 1)
        set_policy(site, "maxMessageSize", 20_000)
        site.outbox.insert_many(rows)
        wait_until(lambda: quarantined(site), description="the quarantine", seconds=60)
        second = site.insert(1, first=5)
        saved(site, 6)
        site.admin("DELETE", "/maxMessageSize")
        third = site.insert(1, first=6)
        saved(site, 7)
        small = [id_of(rows[0]), id_of(rows[2]), id_of(rows[3])]
        assert site.stored() == [*first, *small, *second, *third]
        ((row_id, reason),) = quarantined(site).items()
        assert row_id == id_of(rows[1])
        assert site.topic in reason
        assert ("maxMessageSize allows for 20000" in reason) == admin
        assert Quarantine(site.database, partition=DEFAULT_PARTITION).retry(rows[1]["_id"])
        assert ids(site.receive(plain, 7))[-1] == row_id


def test_a_policy_that_is_set_below_what_a_topic_took_loses_nothing(policies_site: Site) -> None:
    """The large row is in the middle of a burst then, and those behind it are stored."""
    site = policies_site
    rows = [sized(n, size, key="k") for n, size in enumerate((10, 60_000, 10, 10))]
    with relaying(site):
        site.outbox.insert_one(large := sized(0, 100_000, key="k"))
        saved(site, 1)
        set_policy(site, "maxMessageSize", 20_000)
        site.outbox.insert_many(rows)
        wait_until(lambda: quarantined(site), description="the quarantine", seconds=60)
        saved(site, 5)
    assert list(quarantined(site)) == [id_of(rows[1])]
    assert site.stored() == [id_of(large), *(id_of(rows[n]) for n in (0, 2, 3))]


@pytest.mark.parametrize("before", [1, 20_000])
def test_what_a_policy_refused_in_its_turn_never_comes_out_of_order(
    pulsar_site: Site, before: int
) -> None:
    """The policy is gone again, and the relay that met it was killed: the topic alone tells."""
    site = pulsar_site
    with relaying(site):
        written = site.insert(1)
        saved(site, 1)
    rows = [row(n) for n in range(before)]
    rows += [large := sized(0, 60_000), *(row(n) for n in range(3)), late := row(3), last := row(4)]
    site.outbox.insert_many(rows)
    sent = [each for each in rows if each not in (large, late)]
    relays = site.pulsar.create_producer(
        site.topic, producer_name="postroom-relay-default", block_if_queue_full=True
    )
    for place, each in enumerate(sent):
        data = {"name": "Counted", "data": {"number": 0, "wide": "x" * 50}}
        payload = json.dumps(data if each is last else each["data"]).encode()
        properties = {"id": id_of(each), "position": str(place + 2)}
        relays.send_async(payload, lambda *_: None, properties=properties, sequence_id=place + 2)
    relays.flush()
    relays.close()
    with relaying(site, wait=False):
        wait_until(lambda: quarantined(site), description="the quarantine")
        again = site.insert(1)
        wait_until(lambda: site.stored()[-1:] == again, description="the last one")
    ((row_id, reason),) = quarantined(site).items()
    assert row_id == id_of(large)
    assert "did not take the event" in reason
    # What was never refused there, as after a deploy, comes late.
    assert site.stored() == [*written, *map(id_of, sent), id_of(late), *again]


def with_schema(site: Site, topic: str) -> None:
    """Have a topic know a schema."""

    class Told(Record):  # type: ignore[misc]
        name = String()

    site.pulsar.create_producer(topic, schema=JsonSchema(Told)).close()


def sent_around(
    site: Site, second: str, asked: Callable[[str, bytes | None], None], value: Any
) -> list[str]:
    """Set a policy and take it away again; return what was sent there before, under and after it.

    `asked` puts the request to the admin interface. Meanwhile all other topics get theirs.
    """
    sent, written = site.insert(20, name="B"), site.insert(1)
    saved(site, 21)
    asked("POST", json.dumps(value).encode())
    site.admin("PUT", "/unload", topic=second)
    sent += site.insert(20, name="B")
    written += site.insert(5)
    wait_until(lambda: site.stored() == written, description="others flow")
    if value is True:
        asked("POST", b"false")
    else:
        asked("DELETE", None)
    return sent + site.insert(20, name="B")


QUOTA = {"limitSize": 2_000, "policy": "producer_request_hold"}
RATE = {"publishThrottlingRateInMsg": 5, "publishThrottlingRateInByte": -1}


@pytest.mark.parametrize(
    ("policy", "value"),
    [
        ("schemaValidationEnforced", True),
        ("backlogQuota", QUOTA),
        ("publishRate", RATE),
        ("maxProducers", 1),
        ("maxConsumers", 1),
        ("maxSubscriptionsPerTopic", 1),
        ("maxMessageSize", 60),
    ],
)
def test_a_policy_that_comes_and_goes_reorders_and_repeats_nothing(
    policies_site: Site, policy: str, value: Any
) -> None:
    """The topic is moved under it, so that the broker looks again; all other topics get theirs."""
    site, second = policies_site, f"{policies_site.topic}-second"
    with_schema(site, second)
    site.subscribe("slow", second).close()

    def asked(method: str, body: bytes | None = None) -> None:
        site.admin(method, f"/{policy}", topic=second, body=body)

    with relaying(site, topics={"B": second}):
        sent = sent_around(site, second, asked, value)
        wait_until(lambda: site.stored(second)[-1:] == sent[-1:], description="the last one")
        wait_until(
            lambda: len(site.stored(second)) + len(quarantined(site)) == len(sent),
            description="all of them",
            seconds=60,
        )
    aside = quarantined(site)
    assert all("maxMessageSize" in reason or "refuses" in reason for reason in aside.values())
    assert site.stored(second) == [each for each in sent if each not in aside]


@pytest.mark.parametrize(
    ("policy", "value"),
    [
        ("schemaValidationEnforced", True),
        ("backlogQuota", QUOTA),
        ("publishRate", RATE),
        ("dispatchRate", {"dispatchThrottlingRateInMsg": 5, "dispatchThrottlingRateInByte": -1}),
        ("maxProducersPerTopic", 1),
        ("maxConsumersPerTopic", 1),
        ("maxSubscriptionsPerTopic", 1),
    ],
)
def test_a_policy_of_its_namespace_that_comes_and_goes_reorders_and_repeats_nothing(
    pulsar_site: Site, policy: str, value: Any
) -> None:
    """As one of the topic's own does, beside topics of another namespace."""
    site, namespace = pulsar_site, f"public/{pulsar_site.name}"
    second, path = f"persistent://{namespace}/second", f"namespaces/{namespace}/{policy}"
    site.admin_namespace(namespace, "deduplication", value=True)
    with_schema(site, second)
    site.subscribe("slow", second).close()

    def asked(method: str, body: bytes | None = None) -> None:
        site.admin_at(method, path, body)

    with relaying(site, topics={"B": second}):
        sent = sent_around(site, second, asked, value)
        wait_until(
            lambda: site.stored(second)[-1:] == sent[-1:], description="the last one", seconds=60
        )
    assert not quarantined(site)
    assert site.stored(second) == sent


def test_small_rows_are_never_made_too_large_by_being_batched(policies_site: Site) -> None:
    """A policy set before the first row, and one that is set in between."""
    site = policies_site
    set_policy(site, "maxMessageSize", 6_000)
    with relaying(site, wait=False):
        written = site.insert(3_000)
        saved(site, 3_000)
        set_policy(site, "maxMessageSize", 2_000)
        written += site.insert(1_000, first=3_000)
        saved(site, 4_000)
    assert site.stored() == written
    assert not quarantined(site)


def test_a_row_that_is_refused_from_the_start_is_told_from_a_broker_that_stores_nothing(
    policies_site: Site,
) -> None:
    """The relay has sent nothing yet, and no admin interface answers."""
    site = policies_site
    set_policy(site, "maxMessageSize", 20_000)
    site.outbox.insert_many([large := sized(0, 100_000, key="k"), small := sized(1, 10, key="k")])
    with relaying(site, wait=False, pulsar_admin_url=DEAD):
        saved(site, 2)
    assert list(quarantined(site)) == [id_of(large)]
    assert site.stored() == [id_of(small)]


def test_a_delay_beyond_the_policy_is_set_aside_by_name(policies_site: Site) -> None:
    """The broker refuses it as it refuses what is too large."""
    site = policies_site
    policy = {"active": True, "tickTime": 1000, "maxDeliveryDelayInMillis": 60_000}
    set_policy(site, "delayedDelivery", policy)
    rows = [row(n) for n in range(5)]
    for n, seconds in ((1, 3600), (3, 2)):
        rows[n]["deliverAt"] = datetime.now(UTC) + timedelta(seconds=seconds)
    with relaying(site, wait=False):
        site.outbox.insert_many(rows)
        saved(site, 5)
    assert site.stored() == [id_of(rows[n]) for n in (0, 2, 3, 4)]
    ((row_id, reason),) = quarantined(site).items()
    assert row_id == id_of(rows[1])
    assert "maxDeliveryDelayInMillis allows for 60000" in reason


@pytest.mark.parametrize("seconds", [3, 8])
def test_nothing_overtakes_what_a_frozen_broker_did_not_store(
    new_pulsar: Callable[..., Pulsar],
    environment: dict[str, str],
    tmp_path: Path,
    *,
    seconds: int,
) -> None:
    """The topic is moved and the broker frozen for a little longer than the send timeout.

    Meanwhile a row for a new topic keeps the relay from looking at what has failed.
    """
    server = new_pulsar()
    site = Site({**environment, **addresses(server)}, tmp_path)
    new = f"{site.topic}-new"
    with relaying(site, topics={"New": new}, send_timeout_seconds=seconds, shutdown_seconds=20):
        written = site.insert(5)
        saved(site, 5)
        site.admin("PUT", "/unload")
        server.freeze()
        first = [row(n) | {"key": "k"} for n in range(100)]
        site.outbox.insert_many(first)
        threading.Event().wait(seconds - 1)
        second = [row(n, name="New") for n in range(2)] + [row(n) | {"key": "k"} for n in range(9)]
        site.outbox.insert_many(second)
        threading.Event().wait(1.5)
        server.thaw()
        saved(site, 116)
    written += [id_of(each) for each in first + second[2:]]
    assert site.stored() == written
    assert site.stored(new) == [id_of(each) for each in second[:2]]
    site.close()
