"""Policies by which Pulsar takes away what nobody has acknowledged, on real Pulsar."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from postroom.access import pulsar as pulsar_access
from postroom.expiry import expiry
from postroom.findings import Grade
from postroom.pulsar_admin import PulsarAdmin
from postroom.topics import canonical
from tests.acceptance.test_operators_commands import values
from tests.commands import run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from postroom.findings import Finding
    from tests.site import Site

pytestmark = pytest.mark.pulsar

QUOTA = {"limitSize": 1000, "limitTime": -1, "policy": "consumer_backlog_eviction"}
INACTIVE = {
    "inactiveTopicDeleteMode": "delete_when_subscriptions_caught_up",
    "maxInactiveDurationSeconds": 3600,
    "deleteWhileInactive": True,
}
# How it is set for a topic, with what, and what is said of it.
POLICIES: list[tuple[str, Any, str]] = [
    ("messageTTL?messageTTL=60", None, "has a message TTL of 60 s: what billing has not"),
    ("backlogQuota?backlogQuotaType=destination_storage", QUOTA, "consumer_backlog_eviction"),
    (
        "subscriptionExpirationTime?subscriptionExpirationTime=7",
        None,
        "for 7 minutes it is removed",
    ),
    ("inactiveTopicPolicies", INACTIVE, "once all is read and nobody was connected for 3600 s"),
]


def findings(site: Site, *topics: str) -> list[Finding]:
    """Return what the subscription `billing` may lose on topics."""
    admin = PulsarAdmin(pulsar_access.of(site.settings()))
    return expiry(admin, [("billing", canonical(each)) for each in topics or (site.topic,)])


@pytest.mark.parametrize(("policy", "value", "said"), POLICIES)
def test_a_policy_of_a_topic_that_takes_messages_away_is_named(
    policies_site: Site, policy: str, value: Any, said: str
) -> None:
    """With the topic, the subscription and a remedy; without it nothing is said."""
    site = policies_site
    site.subscribe("billing").close()
    assert findings(site) == []
    body = b"" if value is None else json.dumps(value).encode()
    site.admin("POST", f"/{policy}", body=body)
    wait_until(lambda: findings(site), description="it is in force")
    (found,) = findings(site)
    assert found.grade is Grade.WARN
    assert said in found.found
    assert site.topic in found.found
    assert found.remedy.startswith("pulsar-admin namespaces ")
    assert "public/default" in found.remedy


def test_a_namespaces_policy_counts_for_topics_that_are_not_there_yet(policies_site: Site) -> None:
    """Those of its topics, and of the dead letters there, which the doctor looks at as well."""
    site, namespace = policies_site, f"public/{policies_site.name}"
    site.admin_namespace(namespace, "messageTTL", 3600)
    site.environment["POSTROOM_TOPIC"] = site.topic = canonical(f"{namespace}/events")
    (found,) = findings(site)
    assert "message TTL of 3600 s" in found.found
    assert f"pulsar-admin namespaces remove-message-ttl {namespace};" in found.remedy
    seen = values(run(site, "outbox", "doctor", "--json", code=None))
    losses = [each["what"] for each in seen if "message TTL" in each["found"]]
    assert losses == [
        f"what test may lose on {site.topic}",
        f"what dead-letters may lose on {site.topic}-test-DLQ",
    ]
    relay = site.relay()
    relay.wait_for(f"{site.topic} has a message TTL of 3600 s")
    relay.wait_for("Relaying partition")


def test_a_quota_that_has_relays_wait_takes_nothing_away(policies_site: Site) -> None:
    """Nor does one that evicts without a limit, nor an admin interface that is not there."""
    site = policies_site
    site.subscribe("billing").close()
    for changed in ({"policy": "producer_request_hold"}, {"limitSize": -1}):
        quota = json.dumps(QUOTA | changed).encode()
        path = "/backlogQuota?backlogQuotaType=destination_storage"
        site.admin("POST", path, body=quota)
        asked = "/backlogQuotaMap"
        wait_until(
            lambda: all(str(v).encode() in site.admin("GET", asked) for v in changed.values()),  # noqa: B023
            description="it is in force",
        )
        assert findings(site) == []
    site.environment["POSTROOM_PULSAR_ADMIN_URL"] = "http://127.0.0.1:1"
    assert findings(site, site.topic, "public/default/other") == []
