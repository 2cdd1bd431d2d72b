"""What is kept of a topic for the relay that takes over, on real Apache Pulsar."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from devstack.brokers import Pulsar
from devstack.jars import NEEDED, has_java
from devstack.service import free_port
from postroom import wire
from tests.conftest import REQUIRE_ALL, addresses
from tests.relays import relaying, saved
from tests.site import Site, Worker, ids, row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pulsar

OWN = "postroom-relay-default"
ROWS = 55
# A topic keeps nothing for a scan after lost history.
BARELY = {"POSTROOM_HISTORY_MARGIN_HOURS": "0.0001"}
# A checkpoint that comes too late for the kill.
SLOW = {"POSTROOM_CHECKPOINT_SECONDS": "60"}
CONF = {
    "defaultRetentionTimeInMinutes": 0,
    "defaultRetentionSizeInMB": 0,
    "managedLedgerMaxEntriesPerLedger": 10,
    "managedLedgerMinLedgerRolloverTimeMinutes": 0,
    "retentionCheckIntervalInSeconds": 1,
    # The broker's own cursor for it keeps what is behind its last snapshot.
    "brokerDeduplicationEntriesInterval": 5,
    "backlogQuotaCheckIntervalInSeconds": 1,
}


@pytest.fixture(scope="module")
def forgetful_pulsar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulsar]:
    """Lend a broker that deletes at once what all subscriptions have acknowledged."""
    if not has_java():
        pytest.fail(NEEDED) if REQUIRE_ALL else pytest.skip(NEEDED)
    folder = tmp_path_factory.mktemp("forgetful")
    server = Pulsar(folder, port=free_port(), light=True, topic_policies=True, conf=CONF)
    server.start()
    server.wait_ready()
    yield server
    server.stop()


@pytest.fixture
def site(forgetful_pulsar: Pulsar, environment: dict[str, str], tmp_path: Path) -> Iterator[Site]:
    """Lend a corner of that broker, where hardly more than the tail is kept."""
    found = Site({**environment, **addresses(forgetful_pulsar), **BARELY}, tmp_path)
    yield found
    found.close()


def write(site: Site, first: int) -> list[str]:
    """Write keyed rows, which are an entry each, and return their ids."""
    rows = [row(n) | {"key": "k"} for n in range(first, first + ROWS)]
    site.outbox.insert_many(rows)
    return [str(each["_id"]) for each in rows]


def set_policy(site: Site, name: str, value: object) -> None:
    """Give the topic a policy of its own, and wait until it has it."""
    site.admin("POST", f"/{name}", body=json.dumps(value).encode())
    wait_until(lambda: site.admin("GET", f"/{name}"), description=f"{name} is set")


def stats(site: Site) -> Any:
    """Return the topic's statistics."""
    return json.loads(site.admin("GET", "/stats?getPreciseBacklog=true"))


def backlog(site: Site) -> int:
    """Return how many messages the topic keeps for the relay."""
    return int(stats(site)["subscriptions"][OWN]["msgBacklog"])


def relaying_worker(site: Site, **variables: str) -> Worker:
    """Start a relay worker of an application with the test's subscription alone."""
    words = "celery -A tests.chaos.relays worker -Q relay --loglevel=INFO"
    relay = site.start(words, CHAOS_CONSUME=json.dumps({"plain": [site.topic]}), **variables)
    relay.wait_for("Relaying partition")
    return relay


def relayed_and_read(site: Site) -> tuple[pulsar.Consumer, list[str]]:
    """Have a relay send two loads, all of it acknowledged, of which the checkpoint has the first.

    Return the subscription, and the ids of both.
    """
    plain = site.subscribe()
    written = write(site, 0)
    with relaying(site, wait=False):
        before = saved(site, ROWS)
    assert ids(site.receive(plain, ROWS)) == written
    relay = relaying_worker(site, **SLOW)
    # The first checkpoint of a term does not wait.
    written += site.insert(1, first=ROWS)
    wait_until(lambda: site.checkpoint["resumeToken"] != before["resumeToken"], description="it")
    written += write(site, ROWS + 1)
    assert ids(site.receive(plain, ROWS + 1)) == written[ROWS:]
    wait_until(lambda: backlog(site) <= ROWS + 1, description="no more is kept than has to be")
    relay.kill()
    assert site.checkpoint["position"] <= ROWS + 1
    return plain, written


def trimmed(site: Site) -> Callable[[], bool]:
    """Return a look whether the topic has lost something of the second load."""
    return lambda: len(site.stored()) < ROWS


def test_the_tail_is_kept_without_retention(site: Site) -> None:
    """All subscriptions have acknowledged it, and ledgers roll over every ten entries."""
    plain, written = relayed_and_read(site)
    wait_until(lambda: len(site.stored()) < 2 * ROWS - 20, description="what is older is deleted")
    assert site.stored()[-ROWS:] == written[-ROWS:]
    with relaying(site, wait=False):
        written += write(site, 2 * ROWS + 1)
        saved(site, 3 * ROWS + 1)
        # It keeps no more than it has to.
        wait_until(lambda: backlog(site) == 0, description="no backlog")
    assert ids(site.receive(plain, ROWS)) == written[2 * ROWS + 1 :]


def test_lost_history_repeats_nothing_without_retention(site: Site) -> None:
    """What was sent in the time that a scan looks at again is kept until that is over."""
    plain = site.subscribe()
    written = write(site, 0)
    hour = 0.25
    with relaying(site, history_margin_hours=hour):
        saved(site, ROWS)
        written += write(site, ROWS)
        saved(site, 2 * ROWS)
        assert ids(site.receive(plain, 2 * ROWS)) == written
    # Each term begins to count the time anew, and lets go of nothing that it did not see.
    with relaying(site, history_margin_hours=hour):
        written += write(site, 2 * ROWS)
        saved(site, 3 * ROWS)
        assert ids(site.receive(plain, ROWS)) == written[2 * ROWS :]
    lost = {"$set": {"resumeToken": {"_data": "82" + "0" * 60}}}
    site.database[wire.CHECKPOINTS].update_one({}, lost)
    with relaying(site, history_margin_hours=hour):
        written += write(site, 3 * ROWS)
        assert ids(site.receive(plain, ROWS)) == written[3 * ROWS :]
    assert site.stored() == written


def test_a_tail_that_its_topic_no_longer_keeps_is_told(site: Site) -> None:
    """The relay's own subscription was taken away meanwhile."""
    plain, written = relayed_and_read(site)
    site.admin("DELETE", f"/subscription/{OWN}?force=true")
    wait_until(trimmed(site), description="some of it is deleted")
    left = site.stored()
    relay = relaying_worker(site)
    relay.wait_for("no longer keeps the message up to which the checkpoint speaks for it")
    wait_until(lambda: site.checkpoint["position"] > 2 * ROWS, description="it goes on")
    again = [each for each in written[-ROWS:] if each not in left]
    assert again
    assert ids(site.receive(plain, len(again))) == again


def test_a_topic_that_was_made_anew_is_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The relay goes on, and what it sends from then on is there."""
    for first in (0, ROWS):
        with relaying(site):
            written = write(site, first)
            saved(site, first + ROWS)
    assert "was made anew" not in caplog.text
    site.admin("DELETE", "?force=true")
    with relaying(site):
        written = write(site, 2 * ROWS)
        saved(site, 3 * ROWS)
        assert f"{site.topic} was made anew" in caplog.text
        assert site.stored()[-ROWS:] == written
    assert "was put back" not in caplog.text


def test_the_relays_own_subscription_does_not_use_up_a_quota(site: Site) -> None:
    """What was sent since the checkpoint is more than the topic may keep for anybody."""
    plain, written = relayed_and_read(site)
    quota = {"limitSize": 2_000, "policy": "producer_exception"}
    site.admin("POST", "/backlogQuota", body=json.dumps(quota).encode())
    wait_until(lambda: b"2000" in site.admin("GET", "/backlogQuotaMap"), description="a quota")
    wait_until(lambda: backlog(site) >= ROWS, description="its backlog")
    relay = relaying_worker(site)
    relay.wait_for("takes its own subscription")
    written += write(site, 2 * ROWS + 1)
    assert ids(site.receive(plain, ROWS)) == written[2 * ROWS + 1 :]
    assert OWN not in stats(site)["subscriptions"]
    assert site.database[wire.QUARANTINE].count_documents({}) == 0


@pytest.mark.parametrize("most", [1, 2])
def test_the_relays_own_subscription_takes_no_place_that_is_needed(
    site: Site, caplog: pytest.LogCaptureFixture, most: int
) -> None:
    """A topic may have two, and reading the tail takes one; where it may have one it waits."""
    plain, other = site.subscribe(), f"{site.topic}-other"
    with relaying(site, topics={"B": other}):
        written = write(site, 0)
        saved(site, ROWS)
    set_policy(site, "maxSubscriptionsPerTopic", most)
    with relaying(site, topics={"B": other}):
        written += write(site, ROWS)
        saved(site, 2 * ROWS)
        site.admin("DELETE", "/maxSubscriptionsPerTopic")
        assert ids(site.receive(plain, 2 * ROWS)) == written
    assert "cannot be opened as it is (NotAllowedError" in caplog.text
    assert OWN not in stats(site)["subscriptions"] or most == 1


def test_where_subscriptions_are_not_made_the_relay_goes_on_and_says_which_it_wants(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The namespace forbids to make them by subscribing."""
    own = f"public/{site.name}"
    site.admin_namespace(own, "autoSubscriptionCreation", {"allowAutoSubscriptionCreation": False})
    strict = f"persistent://{own}/strict"
    with relaying(site, topics={"B": strict}):
        written = site.insert(5, name="B")
        saved(site, 5)
    assert f"cannot have its subscription {OWN!r} on {strict} (" in caplog.text
    assert f"create-subscription {strict} -s {OWN}" in caplog.text
    assert site.stored(strict) == written


def test_a_topic_that_is_declared_shared_later_loses_the_relays_own_subscription(
    site: Site,
) -> None:
    """It would keep what all other producers send."""
    with relaying(site):
        site.insert(1)
        saved(site, 1)
        assert OWN in stats(site)["subscriptions"]
    with relaying(site, shared=(site.topic,)):
        site.insert(1)
        saved(site, 2)
        assert OWN not in stats(site)["subscriptions"]


def test_a_subscription_that_cannot_be_made_holds_up_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that consumers of a topic would use is one too many there."""
    site.subscribe("other").close()
    set_policy(site, "maxSubscriptionsPerTopic", 1)
    second = f"{site.topic}-second"
    with relaying(site, topics={"B": second}):
        written = site.insert(1, name="B")
        saved(site, 1)
    assert (
        f"The subscription 'plain' on {site.topic} cannot be made (NotAllowedError" in caplog.text
    )
    assert site.stored(second) == written
