"""Policies of topics and namespaces that come and go while rows are under way, on real Pulsar."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pulsar
import pytest

from postroom import broker, errors, wire
from postroom.abilities import probe, stores_anything
from postroom.access import pulsar as pulsar_access
from postroom.pulsar_admin import PulsarAdmin
from postroom.relay import stand
from postroom.relay.relay import Relay
from postroom.relay.sending import readback
from postroom.relay.state import State
from postroom.routing import Routing
from postroom.store.pauses import Pauses
from postroom.store.values import DEFAULT_PARTITION
from postroom.topics import canonical
from tests.relays import relaying, saved
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site

DISPATCH = {
    "dispatchThrottlingRateInMsg": 1,
    "dispatchThrottlingRateInByte": -1,
    "ratePeriodInSecond": 1,
}
PUBLISH = {"publishThrottlingRateInMsg": 5, "publishThrottlingRateInByte": -1}

pytestmark = pytest.mark.pulsar


def topics_of(site: Site, namespace: str) -> list[str]:
    """Return the names of all topics of a namespace that are ours."""
    found = json.loads(site.admin("GET", "", topic=namespace))
    return [name for name in found if "__change_events" not in name]


def test_a_topic_whose_own_policy_turns_deduplication_off_is_named(
    policies_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Its namespace has it, which the probe finds: refused where exactly once is demanded."""
    site = policies_site
    site.subscribe().close()
    site.admin("POST", "/deduplicationEnabled", body=b"false")
    wait_until(lambda: site.admin("GET", "/deduplicationEnabled") == b"false", description="it")
    settings = site.settings(delivery="exactly_once")
    refused = Relay(settings, Routing(default=settings.topic, topics={}, key=None))
    with pytest.raises(errors.ConfigurationError, match=f"deduplication on {site.topic}"):
        refused.run()
    with relaying(site):
        written = site.insert(3)
        saved(site, 3)
    assert f"lacks deduplication on {site.topic}" in caplog.text
    assert site.stored() == written


def test_who_probes_beside_others_is_not_misled(policies_site: Site) -> None:
    """Five probes at once, which fence each other and take the topic away: all say what is so.

    One whose send is not answered in time says nothing, and whoever starts asks again.
    """
    site, namespace = policies_site, f"public/{policies_site.name}"
    site.admin_namespace(namespace, "deduplication", value=True)
    topic = canonical(f"{namespace}/events")
    access = pulsar_access.of(site.settings())

    def probed(_: int) -> tuple[bool, bool]:
        for _attempt in range(3):
            with (
                contextlib.suppress(pulsar.Timeout),
                broker.connected(access, operation_timeout=timedelta(seconds=10)) as client,
            ):
                found = probe(client, [topic], PulsarAdmin(access))
                return found.fencing, found.deduplication
        return False, False

    with ThreadPoolExecutor(5) as pool:
        assert set(pool.map(probed, range(15))) == {(True, True)}


def test_the_probe_of_a_namespace_leaves_no_topic_behind(policies_site: Site) -> None:
    """Neither at the start nor where a relay asks whether the broker stores anything."""
    site, namespace = policies_site, f"public/{policies_site.name}"
    site.admin_namespace(namespace, "deduplication", value=True)
    topic = canonical(f"{namespace}/events")
    access = pulsar_access.of(site.settings())
    with broker.connected(access, operation_timeout=timedelta(seconds=10)) as client:
        assert stores_anything(client, PulsarAdmin(access), topic)
        assert topics_of(site, namespace) == []
        assert probe(client, [topic], PulsarAdmin(access)).deduplication
        assert topics_of(site, namespace) == []


def own_namespace(site: Site, policy: str, value: object) -> str:
    """Have a site's topic in a namespace of its own, which has a policy; return the namespace."""
    namespace = f"public/{site.name}"
    site.admin_namespace(namespace, "deduplication", value=True)
    site.admin_namespace(namespace, policy, value)
    site.topic = canonical(f"{namespace}/events")
    site.environment["POSTROOM_TOPIC"] = site.topic
    return namespace


def remove_policy(site: Site, namespace: str, policy: str) -> None:
    """Take a policy away from a namespace."""
    site.admin("DELETE", f"/{policy}", topic=f"namespaces://{namespace}")


@pytest.mark.parametrize("rate", ["dispatchRate", "subscriptionDispatchRate"])
def test_what_a_dispatch_rate_holds_up_is_named_and_ends(
    policies_site: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    rate: str,
) -> None:
    """A term has to read back what the topic has since the checkpoint, one message a second."""
    monkeypatch.setattr(readback, "FIRST_WORD_SECONDS", 0.5)
    site = policies_site
    site.subscribe().close()
    with relaying(site):
        written = site.insert(1)
        before = saved(site, 1)
        written += site.insert(5, first=1)
        saved(site, 6)
    site.admin("POST", f"/{rate}", body=json.dumps(DISPATCH).encode())
    site.database[wire.CHECKPOINTS].replace_one({"_id": before["_id"]}, before)
    with relaying(site, wait=False) as relay:
        named = f"{site.topic} has the policy {rate} (1 messages a second)"
        wait_until(lambda: named in relay.status.reason, description="what it waits for")
        assert f"{named}: raise or remove it" in relay.status.reason
        assert "Reading what" in relay.status.reason
        open_before = caplog.text.count("Relaying partition")
        Pauses(site.database).begin(DEFAULT_PARTITION, by="me")
        wait_until(lambda: relay.status.state is State.PAUSED, description="it is left, not read")
        assert caplog.text.count("Relaying partition") == open_before
        Pauses(site.database).end(DEFAULT_PARTITION)
        written += site.insert(3, first=6)
        saved(site, 9)
        assert relay.status.reason == ""
    assert named in caplog.text
    site.admin("DELETE", f"/{rate}")
    assert site.stored() == written


def test_what_a_publish_rate_holds_up_names_it(
    policies_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker throttles without a word; nothing is lost, repeated or out of order."""
    site = policies_site
    namespace = own_namespace(site, "publishRate", PUBLISH)
    site.subscribe(topic=site.topic).close()
    with relaying(site, wait=False, send_timeout_seconds=2):
        written = site.insert(100)
        named = f"{site.topic} has the policy publishRate (5 messages a second)"
        wait_until(lambda: named in caplog.text, description="the policy is named")
        assert f"{named}: raise or remove it" in caplog.text
        remove_policy(site, namespace, "publishRate")
        saved(site, 100)
    assert site.stored() == written


def test_one_producer_a_topic_is_no_lack_of_fencing(
    policies_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be tried is not taken for missing: the relay fences as ever, and says it."""
    site = policies_site
    namespace = own_namespace(site, "maxProducersPerTopic", 1)
    with relaying(site, wait=False, delivery="exactly_once"):
        written = site.insert(5)
        saved(site, 5)
        stats = json.loads(site.admin("GET", "/stats"))
        assert stats["publishers"][0]["accessMode"] == "ExclusiveWithFencing"
    assert "lacks" not in caplog.text
    assert f"{namespace} take one producer alone (maxProducersPerTopic)" in caplog.text
    assert site.stored() == written


def test_deduplication_of_a_topics_own_is_seen(
    policies_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Its namespace has none, and the probe has its namespace's."""
    site = policies_site
    own_namespace(site, "deduplication", value=False)
    site.subscribe(topic=site.topic).close()
    site.admin("POST", "/deduplicationEnabled", body=b"true")
    wait_until(lambda: site.admin("GET", "/deduplicationEnabled") == b"true", description="it")
    with relaying(site, delivery="exactly_once"):
        written = site.insert(3)
        saved(site, 3)
    assert "lacks" not in caplog.text
    assert site.stored() == written
    site.admin("DELETE", "/deduplicationEnabled")
    wait_until(lambda: site.admin("GET", "/deduplicationEnabled") != b"true", description="none")
    with relaying(site):
        assert "lacks deduplication" in caplog.text


def test_a_namespace_that_takes_encrypted_messages_alone_is_named(
    policies_site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers nothing to producers; its topics wait, and others flow."""
    monkeypatch.setattr(stand, "OPERATION_TIMEOUT", timedelta(seconds=1))
    site, second = policies_site, policies_site.topic
    namespace = own_namespace(site, "encryptionRequired", value=True)
    with relaying(site, wait=False, topics={"B": second}) as relay:
        waiting = site.insert(2)
        flowing = site.insert(3, name="B")
        named = f"{site.topic} has the policy encryptionRequired"
        wait_until(
            lambda: named in relay.status.topics_shut.get(site.topic, ""), description="it is named"
        )
        wait_until(lambda: site.stored(second) == flowing, description="others flow")
        assert named in caplog.text
        assert "turn it off for its namespace, or use a topic of another one" in caplog.text
        site.admin_namespace(namespace, "encryptionRequired", value=False)
        wait_until(lambda: site.stored() == waiting, description="what waited goes there")
