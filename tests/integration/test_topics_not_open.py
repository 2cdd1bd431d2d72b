"""Topics that cannot be opened, on real Apache Pulsar: they stop nothing but themselves."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from bson import ObjectId
from pulsar.schema import JsonSchema, Record, String

from postroom import wire
from postroom.relay import facts
from postroom.relay.relay import Relay
from postroom.relay.sending import upkeep, waiting
from postroom.relay.state import State
from postroom.routing import Routing
from postroom.store.quarantine import Quarantine, Quarantined
from postroom.store.values import DEFAULT_PARTITION
from postroom.topics import Topic
from tests.relays import relaying, saved, waits
from tests.site import row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.site import Site


def quarantined(site: Site) -> list[dict[str, Any]]:
    """Return what is in quarantine, in the order of its numbers."""
    return list(site.database[wire.QUARANTINE].find().sort("position", 1))


def is_empty(site: Site) -> bool:
    """Say whether nothing is in quarantine."""
    return not quarantined(site)


def test_a_terminated_topic_holds_up_itself_alone_and_gets_its_rows_when_it_is_made_anew(
    pulsar_site: Site,
) -> None:
    """It was terminated while no relay ran, and nothing waited for it then."""
    site, second = pulsar_site, f"{pulsar_site.topic}-second"
    with relaying(site, topics={"B*": second}):
        site.insert(1, name="B")
        saved(site, 1)
    site.admin("POST", "/terminate", topic=second)
    with relaying(site, topics={"B*": second}) as relay:
        first = site.insert(3)
        saved(site, 4)
        waiting = site.insert(700, name="B")
        first += site.insert(3)
        saved(site, 707)
        assert site.stored() == first
        found = quarantined(site)
        assert [str(each["_id"]) for each in found] == waiting
        assert {each["topic"] for each in found} == {second}
        assert all("TopicTerminated" in each["reason"] for each in found)
        assert "TopicTerminated" in relay.status.snapshot()["topics_shut"][second]
        site.admin("DELETE", "?force=true", topic=second)
        later = site.insert(20, name="B")
        wait_until(lambda: is_empty(site), description="all have returned", seconds=60)
        wait_until(lambda: site.checkpoint["position"] == 727, description="the checkpoint")
        later += site.insert(20, name="B")
        saved(site, 747)
        assert relay.status.counts.terms == 1
        assert not relay.status.topics_shut
    assert site.stored(second) == waiting + later
    assert site.stored() == first


class Told(Record):  # type: ignore[misc]
    """A schema."""

    name = String()


def refuse(site: Site, topic: str, by: str) -> None:
    """Have a topic take nothing more from a relay, in one of the ways in which topics do."""
    if by == "terminated":
        site.admin("POST", "/terminate", topic=topic)
        return
    site.pulsar.create_producer(topic, schema=JsonSchema(Told)).close()
    site.admin("POST", f"/{by}", topic=topic, body=b"true")
    wait_until(lambda: site.admin("GET", f"/{by}", topic=topic), description=f"{by} is set")
    site.admin("PUT", "/unload", topic=topic)


REMEDIES = {
    "terminated": "use another one, or delete it and have it made anew",
    "schemaValidationEnforced": "allow producers and consumers without one",
}


@pytest.mark.parametrize("by", REMEDIES)
def test_a_restart_beside_a_topic_that_takes_nothing_names_it_and_what_to_do(
    policies_site: Site, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    """No row waits for it yet: all else flows, and log and status say which topic and remedy."""
    site, second = policies_site, f"{policies_site.topic}-second"
    with relaying(site, topics={"B*": second}):
        site.insert(3, name="B")
        saved(site, 3)
    refuse(site, second, by)
    with relaying(site, topics={"B*": second}) as relay:
        written = site.insert(3)
        saved(site, 6)
        assert site.stored() == written
        assert REMEDIES[by] in relay.status.topics_shut[second]
        assert relay.status.counts.terms == 1
    (said,) = [each for each in caplog.messages if "all else flows" in each]
    assert second in said
    assert REMEDIES[by] in said


def test_rows_that_wait_for_a_topic_return_behind_a_restart_and_once(pulsar_site: Site) -> None:
    """The relay is stopped while they wait, and its checkpoint is lost while they return."""
    site, second = pulsar_site, f"{pulsar_site.topic}-second"
    with relaying(site, topics={"B*": second}):
        written = site.insert(1)
        site.insert(1, name="B")
        before = saved(site, 2)
    site.admin("POST", "/terminate", topic=second)
    with relaying(site, topics={"B*": second}):
        written += site.insert(1)
        waiting = site.insert(10, name="B")
        saved(site, 13)
    entries = quarantined(site)
    site.admin("DELETE", "?force=true", topic=second)
    with relaying(site, topics={"B*": second}):
        wait_until(lambda: is_empty(site), description="all have returned")
    # As if the relay had been killed before it could note that they have arrived.
    site.database[wire.CHECKPOINTS].replace_one({}, before)
    site.database[wire.QUARANTINE].insert_many(entries)
    with relaying(site, topics={"B*": second}):
        waiting += site.insert(1, name="B")
        wait_until(lambda: is_empty(site), description="all have returned")
        wait_until(lambda: len(site.stored(second)) == 11, description="the last one")
    assert site.stored(second) == waiting
    assert site.stored() == written


@pytest.mark.parametrize("tail", [0, 1, 5])
def test_what_a_terminated_topic_has_since_the_checkpoint_is_known(
    pulsar_site: Site, tail: int
) -> None:
    """The relay was killed before its checkpoint, and then the topic was terminated."""
    site, second = pulsar_site, f"{pulsar_site.topic}-second"
    with relaying(site, topics={"B*": second}):
        written, sent = site.insert(1), site.insert(1, name="B")
        before = saved(site, 2)
        sent += site.insert(tail, name="B") if tail else []
        written += site.insert(2)
        saved(site, 4 + tail)
    site.database[wire.CHECKPOINTS].replace_one({}, before)
    site.admin("POST", "/terminate", topic=second)
    with relaying(site, topics={"B*": second}) as relay:
        waiting = site.insert(2, name="B")
        written += site.insert(1)
        saved(site, 7 + tail)
        assert relay.status.counts.terms == 1
    assert [str(each["_id"]) for each in quarantined(site)] == waiting
    assert site.stored(second) == sent
    assert site.stored() == written


@pytest.fixture
def namespace(pulsar_site: Site) -> Callable[[str, Any], str]:
    """Lend a way to make a namespace of the test's own that has a policy."""

    def make(policy: str, value: Any) -> str:
        admin = f"{pulsar_site.environment['POSTROOM_PULSAR_ADMIN_URL']}/admin/v2/namespaces"
        own = f"public/{pulsar_site.name}"
        for method, what, body in (("PUT", "", b""), ("POST", policy, json.dumps(value).encode())):
            headers = {"Content-Type": "application/json"}
            url = f"{admin}/{own}{what}"
            request = urllib.request.Request(url, body, headers, method=method)
            with contextlib.suppress(urllib.error.HTTPError):  # it is there already
                urllib.request.urlopen(request, timeout=10).close()
        return f"persistent://{own}"

    return make


def test_a_topic_that_is_made_after_its_first_event_gets_it(
    pulsar_site: Site, namespace: Callable[[str, Any], str]
) -> None:
    """Nobody has to do anything but make it."""
    site = pulsar_site
    strict_topic = f"{namespace('/autoTopicCreation', {'allowAutoTopicCreation': False})}/later"
    with relaying(site, topics=lambda name, _: strict_topic if name == "B" else None):
        waiting = site.insert(5, name="B")
        written = site.insert(5)
        saved(site, 10)
        assert site.stored() == written
        assert {each["topic"] for each in quarantined(site)} == {strict_topic}
        # What waits for its topic returns by itself; a retry would send it twice.
        quarantine = Quarantine(site.database, partition=DEFAULT_PARTITION)
        assert not any(quarantine.retry(each["_id"]) for each in quarantined(site))
        site.admin("PUT", "", topic=strict_topic)
        wait_until(lambda: is_empty(site), description="all have returned")
        waiting += site.insert(5, name="B")
        saved(site, 15)
    assert site.stored(strict_topic) == waiting


@pytest.mark.parametrize("policy", ["producer_exception", "producer_request_hold"])
def test_a_topic_whose_quota_is_used_up_gets_its_rows_once_it_has_room(
    pulsar_site: Site, namespace: Callable[[str, Any], str], policy: str
) -> None:
    """The broker refuses the producer, and all other topics get theirs."""
    site = pulsar_site
    second = f"{namespace('/backlogQuota', {'limitSize': 5_000, 'policy': policy})}/second"
    site.subscribe("slow", second)
    with relaying(site, topics={"B*": second}):
        first = site.insert(100, name="B")
        saved(site, 100)
    with relaying(site, topics={"B*": second}) as relay:
        waiting = site.insert(10, name="B")
        written = site.insert(10)
        saved(site, 120)
        assert site.stored() == written
        assert {each["topic"] for each in quarantined(site)} == {second}
        assert "consume what its subscriptions keep, or raise" in relay.status.topics_shut[second]
        namespace("/backlogQuota", {"limitSize": 5_000_000, "policy": policy})
        wait_until(lambda: is_empty(site), description="all have returned", seconds=60)
    assert site.stored(second) == first + waiting


def test_where_no_topic_can_be_opened_the_relay_waits(pulsar_site: Site) -> None:
    """Nothing is set aside: nothing else could flow meanwhile."""
    site = pulsar_site
    with relaying(site):
        written = site.insert(1)
        saved(site, 1)
    site.admin("POST", "/terminate")
    settings = site.settings(mutex_retry_seconds=0.1)
    relay = Relay(settings, Routing(default=settings.topic, topics={}, key=None))
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        wait_until(lambda: waits(relay), description="a failed term")
        assert "TopicTerminated" in relay.status.reason
        assert site.topic in relay.status.reason
        written = site.insert(3)
        site.admin("DELETE", "?force=true")
        wait_until(lambda: relay.status.state is State.RELAYING, description="a term")
        saved(site, 4)
    finally:
        relay.stop()
        thread.join(20)
    assert site.stored() == written
    assert is_empty(site)


def test_a_topic_that_is_made_partitioned_under_the_relay_holds_up_itself_alone(
    pulsar_site: Site,
) -> None:
    """It is deleted and made anew; its rows wait until it is one log again."""
    site, second = pulsar_site, f"{pulsar_site.topic}-second"
    with relaying(site, topics={"B*": second}):
        site.insert(1, name="B")
        written = site.insert(1)
        saved(site, 2)
        site.admin("DELETE", "?force=true", topic=second)
        site.admin("PUT", "/partitions", topic=second, body=b"1")
        waiting = site.insert(3, name="B")
        written += site.insert(3)
        saved(site, 8)
        assert site.stored() == written
        assert ["topic partition" in each["reason"] for each in quarantined(site)] == [True] * 3
        site.admin("DELETE", "/partitions?force=true", topic=second)
        wait_until(lambda: is_empty(site), description="all have returned", seconds=60)
    assert site.stored(second) == waiting


def test_a_topic_that_is_made_partitioned_is_found_before_anything_goes_there(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay looks at each topic once a minute, here more often, also when it has nothing."""
    monkeypatch.setattr(upkeep, "LOOK_AGAIN_SECONDS", 0.5)
    site, second = pulsar_site, f"{pulsar_site.topic}-second"
    with relaying(site, topics={"B*": second}) as relay:
        site.insert(1, name="B")
        written = site.insert(1)
        saved(site, 2)
        site.admin("DELETE", "?force=true", topic=second)
        site.admin("PUT", "/partitions", topic=second, body=b"4")
        wait_until(
            lambda: second in relay.status.snapshot()["topics_shut"], description="it is found"
        )
        assert "topic partition" in relay.status.snapshot()["topics_shut"][second]
        written += site.insert(1)
        saved(site, 3)
    assert site.stored() == written


def test_rows_return_before_the_scan_that_set_them_aside_is_over(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, once, and while the scan goes on."""
    site, second = pulsar_site, f"{pulsar_site.topic}-second"
    monkeypatch.setattr(waiting, "FIRST_TRY_SECONDS", 0.05)
    monkeypatch.setattr(waiting, "REST", 0.0)
    site.subscribe(topic=second).close()
    site.admin("POST", "/terminate", topic=second)
    rows = [row(n, name="B" if n % 5000 == 0 else "Counted") for n in range(40_000)]
    site.outbox.insert_many(rows)
    told: list[str] = []

    def hear(fact: object) -> None:
        if isinstance(fact, facts.RowsQuarantined) and "set aside" not in told:
            told.append("set aside")
            site.admin("DELETE", "?force=true", topic=second)
        elif isinstance(fact, facts.RowsReturned):
            told.append("returned")
        elif isinstance(fact, facts.ChunkStored) and site.topic in fact.topics:
            told.append("scanned" if fact.cluster_time is None else "streamed")

    with relaying(site, topics={"B": second}, wait=False, hear=hear):
        wait_until(lambda: site.checkpoint.get("position") == 40_000, description="all")
        wait_until(lambda: is_empty(site), description="all have returned", seconds=60)
        wait_until(lambda: "scan" not in site.checkpoint, description="its end")
    assert "scanned" in told[told.index("returned") :]
    assert site.stored(second) == [str(rows[n]["_id"]) for n in range(0, 40_000, 5000)]
    assert site.stored() == [str(each["_id"]) for n, each in enumerate(rows) if n % 5000]


@pytest.mark.parametrize("is_first", [True, False], ids=["scan", "stream"])
def test_a_row_that_an_earlier_term_set_aside_and_a_deploy_routes_elsewhere_is_sent_once(
    pulsar_site: Site, *, is_first: bool
) -> None:
    """The relay was killed before it could note how far it came."""
    site, second = pulsar_site, f"{pulsar_site.topic}-second"
    site.subscribe(topic=second).close()
    if not is_first:
        with relaying(site):
            site.insert(1)
            saved(site, 1)
    written = site.insert(3, name="B")
    position = 1 if is_first else 2
    Quarantine(site.database, partition=DEFAULT_PARTITION).store(
        Quarantined(
            row_id=ObjectId(row_id), position=n, reason="shut", topic=Topic(f"{site.topic}-third")
        )
        for n, row_id in enumerate(written, position)
    )
    with relaying(site, topics={"B": second}, wait=False):
        wait_until(lambda: is_empty(site), description="nothing waits")
        written += site.insert(1, name="B")
        wait_until(lambda: site.stored(second)[-1:] == written[-1:], description="the last")
    assert site.stored(second) == written
