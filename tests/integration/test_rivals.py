"""Relays that do not exclude each other by a mutex: the second one is refused, and told by whom."""

from __future__ import annotations

import contextlib
import json
import urllib.error
from typing import TYPE_CHECKING, Any

import pytest

from postroom import broker, wire
from postroom.abilities import PROBE
from postroom.relay import occupant, rivals
from postroom.relay.state import State
from tests.relays import relaying, saved
from tests.site import ids
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devstack.brokers import Pulsar
    from postroom.relay.relay import Relay
    from tests.site import Site

pytestmark = pytest.mark.pulsar


@pytest.fixture(autouse=True)
def without_probe(pulsar_site: Site) -> Iterator[None]:
    """Leave no probe behind: relays that start together, or without the admin interface, do."""
    yield
    with contextlib.suppress(urllib.error.HTTPError):
        pulsar_site.admin("DELETE", "?force=true", topic=f"public/default/{PROBE}")


def make_namespace(site: Site, namespace: str) -> None:
    """Make a namespace, and its tenant, unless they are there."""
    tenant = json.dumps({"allowedClusters": ["standalone"]}).encode()
    site.admin_at("PUT", f"tenants/{namespace.partition('/')[0]}", tenant)
    site.admin_namespace(namespace, "deduplication", value=True)


def refused(relay: Relay, *words: str, state: State = State.STANDBY) -> None:
    """Wait until a relay stands by, or waits, with these words."""

    def says_so() -> bool:
        reason = relay.status.reason
        return relay.status.state is state and all(word in reason for word in words)

    wait_until(says_so, description=f"{words}")


@pytest.mark.parametrize("namespace", ["public/default", "elsewhere/default"])
def test_a_relay_with_another_mutex_topic_is_refused_for_as_long_as_the_first_one_lives(
    pulsar_site: Site, caplog: pytest.LogCaptureFixture, namespace: str
) -> None:
    """It names the first one and its mutex, sends nothing, and takes over when that one leaves."""
    site = pulsar_site
    make_namespace(site, namespace)
    plain = site.subscribe()
    other = f"{namespace}/{site.name}-other"
    elsewhere = site.subscribe(topic=other)
    with relaying(site) as first:
        second = relaying(site, wait=False, topic=other, mutex_topic=f"{other}-mutex")
        with second as relay:
            mine = broker.canonical(f"{other}-mutex")
            refused(relay, first.status.owner, f"{site.topic}-mutex", mine, "for as long as")
            written = site.insert(50)
            assert ids(site.receive(plain, 50)) == written
            saved(site, 50)
            assert (first.status.counts.terms, relay.status.counts.terms) == (1, 0)
            first.stop()
            wait_until(lambda: relay.status.state is State.RELAYING, description="its turn")
            moved = site.insert(5, first=50)
            assert ids(site.receive(elsewhere, 5)) == moved
    warned = [r for r in caplog.records if r.levelname == "WARNING" and "belongs to" in r.message]
    assert len(warned) == 1


def test_a_relay_on_another_cluster_is_refused(
    pulsar_site: Site, pulsar_with_policies: Pulsar
) -> None:
    """A mutex topic of the same name excludes nobody there."""
    site = pulsar_site
    there: dict[str, Any] = {
        "pulsar_url": pulsar_with_policies.url,
        "pulsar_admin_url": pulsar_with_policies.admin_url,
    }
    with relaying(site) as first, relaying(site, wait=False, **there) as second:
        refused(second, first.status.owner, broker.masked(site.environment["POSTROOM_PULSAR_URL"]))
        assert second.status.counts.terms == 0


def test_rivals_that_start_together_leave_one(pulsar_site: Site) -> None:
    """Neither of them had seen the other when it looked."""
    site = pulsar_site
    with (
        relaying(site, wait=False, mutex_topic=f"{site.topic}-1") as one,
        relaying(site, wait=False, mutex_topic=f"{site.topic}-2") as two,
    ):
        written, plain = site.insert(20), site.subscribe()
        assert ids(site.receive(plain, 20)) == written
        wait_until(
            lambda: any("for as long as" in each.status.reason for each in (one, two)),
            description="one that was refused",
            seconds=60,
        )
        assert one.status.counts.terms + two.status.counts.terms == 1


def test_a_relay_that_crashed_keeps_nobody_out(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a sign of life it is replaced, from wherever."""
    monkeypatch.setattr(rivals, "SILENT_SECONDS", 4.0)
    site = pulsar_site
    crashing = site.relay()
    crashing.wait_for("Relaying partition")
    crashing.kill()
    with relaying(site, wait=False, mutex_topic=f"public/default/{site.name}-moved") as relay:
        refused(relay, "first waits for 4 s", f"{site.topic}-mutex")
        wait_until(lambda: relay.status.state is State.RELAYING, description="its turn")


def test_a_relay_that_wakes_up_deposes_nobody_who_meets_elsewhere(
    pulsar_site: Site,
) -> None:
    """A claim of a version that names no mutex is found out by being deposed."""
    site = pulsar_site
    with relaying(site) as first:
        rows = site.database[wire.CHECKPOINTS]
        rows.update_one({}, {"$inc": {"epoch": 1}, "$set": {"owner": "old", "mutex": None}})
        refused(first, "old", "does not name")
        assert site.checkpoint["owner"] == "old"


def test_the_checkpoint_keeps_what_other_programs_know(pulsar_site: Site) -> None:
    """Fields of others stay, and a claim of a form that is not ours is no obstacle."""
    site = pulsar_site
    site.database[wire.CHECKPOINTS].insert_one(
        {"partitionKey": "default", "resumeToken": None, "mutex": 7, "epoch": 3, "extra": 1}
    )
    with relaying(site) as relay:
        row = site.checkpoint
        assert (row["epoch"], row["extra"]) == (4, 1)
        assert row["mutex"]["topic"] == f"{site.topic}-mutex"
        wait_until(lambda: "aliveAt" in site.checkpoint, description="a sign of life")
        assert relay.status.counts.terms == 1
    assert "mutex" not in site.checkpoint


def test_a_standby_says_that_its_mutex_serves_another_database(
    pulsar_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Two services on one mutex topic: the name, what it serves, and what to do."""
    site = pulsar_site
    with (
        relaying(site) as holder,
        relaying(site, wait=False, mongodb_database=f"{site.name}b") as standby,
    ):
        refused(standby, holder.status.owner, f"database {site.name!r}", f"not '{site.name}b'")
        assert "POSTROOM_MUTEX_TOPIC" in standby.status.reason
    site.mongodb.drop_database(f"{site.name}b")
    assert [r for r in caplog.records if r.levelname == "WARNING" and "is held by" in r.message]


def test_a_standby_says_that_its_mutex_serves_another_partition(pulsar_site: Site) -> None:
    """The topic of one outbox partition may be the setting of another."""
    site = pulsar_site
    topic = f"public/default/{site.name}-mutex"
    with relaying(site, wait=False, partition="a") as holder:
        wait_until(lambda: holder.status.state is State.RELAYING, description="a holder")
        with relaying(site, wait=False, mutex_topic=f"{topic}-a") as standby:
            refused(standby, holder.status.owner, "partition 'a', not 'default'")


@pytest.mark.parametrize("same", [True, False])
def test_without_the_admin_interface_the_checkpoint_tells(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch, *, same: bool
) -> None:
    """A checkpoint that moves names the holder; one that does not is not the holder's."""
    monkeypatch.setattr(occupant, "SAME_SECONDS", 4.0)
    site = pulsar_site
    database = site.name if same else f"{site.name}b"
    if not same:
        stale = {"partitionKey": "default", "resumeToken": None, "epoch": 3, "owner": "gone"}
        site.mongodb[database][wire.CHECKPOINTS].insert_one(stale)
    settings: dict[str, Any] = {
        "pulsar_admin_url": "http://127.0.0.1:1",
        "mongodb_database": database,
    }
    with relaying(site) as holder, relaying(site, wait=False, **settings) as standby:
        if same:
            refused(standby, f"{holder.status.owner} by the checkpoint")
        else:
            refused(standby, "by the checkpoint none relays", "POSTROOM_MUTEX_TOPIC")
    site.mongodb.drop_database(f"{site.name}b")


def test_a_mutex_that_is_no_relays(pulsar_site: Site) -> None:
    """Some consumer sits there, and is named."""
    site = pulsar_site
    other = site.pulsar.subscribe(f"{site.topic}-mutex", "mutex", consumer_name="some-app")
    with relaying(site, wait=False) as standby:
        refused(standby, "some-app", "it is no relay")
        other.close()
        wait_until(lambda: standby.status.state is State.RELAYING, description="its turn")


def test_a_limit_on_consumers_is_not_called_another_relay(
    policies_site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker answers alike in both cases; who could not take over stands by for nobody."""
    monkeypatch.setattr(occupant, "SAME_SECONDS", 1.0)
    site = policies_site
    mutex = f"{site.name}-mutex"
    consumer = site.pulsar.subscribe(f"public/default/{mutex}", "unrelated")
    limit: Callable[[bytes], bytes] = lambda body: site.admin(  # noqa: E731
        "POST", "/maxConsumers", topic=f"public/default/{mutex}", body=body
    )
    limit(b"1")
    with relaying(site, wait=False) as standby:
        words = "although nobody holds it", "maxConsumersPerTopic"
        refused(standby, *words, state=State.WAITING)
        consumer.close()
        wait_until(lambda: standby.status.state is State.RELAYING, description="its turn")
    assert "Another relay holds" not in caplog.text
