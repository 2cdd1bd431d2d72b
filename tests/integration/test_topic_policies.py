"""Policies of topics and namespaces that come and go while rows are under way, on real Pulsar."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from postroom import broker, errors
from postroom.abilities import probe, stores_anything
from postroom.access import pulsar as pulsar_access
from postroom.pulsar_admin import PulsarAdmin
from postroom.relay.relay import Relay
from postroom.routing import Routing
from postroom.topics import canonical
from tests.relays import relaying, saved
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site

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
    """Five probes at once, which fence each other and take the topic away: all say what is so."""
    site, namespace = policies_site, f"public/{policies_site.name}"
    site.admin_namespace(namespace, "deduplication", value=True)
    topic = canonical(f"{namespace}/events")
    access = pulsar_access.of(site.settings())

    def probed(_: int) -> tuple[bool, bool]:
        with broker.connected(access, operation_timeout=timedelta(seconds=10)) as client:
            found = probe(client, [topic], PulsarAdmin(access))
        return found.fencing, found.deduplication

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
