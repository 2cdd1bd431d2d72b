"""The relay at its edges, on real Apache Pulsar and MongoDB."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import pulsar
import pytest
from bson import Binary, Decimal128, ObjectId
from pymongo.errors import AutoReconnect

from devstack.mongodb import MongoDB
from devstack.service import free_port
from postroom import wire
from postroom.errors import ConfigurationError
from postroom.relay.reading import origin
from postroom.relay.reading.batch import BATCH_ROWS
from postroom.relay.relay import Relay
from postroom.relay.saving import retention
from postroom.relay.saving.retention import Retention
from postroom.relay.sending.tail import Tail, TailReader
from postroom.routing import Routing
from postroom.store.checkpoints import CheckpointStore
from postroom.store.quarantine import Quarantine
from postroom.store.values import DEFAULT_PARTITION
from postroom.topics import Topic
from tests.conftest import running
from tests.namespaces import UNDEDUPLICATED, make_undeduplicated
from tests.relays import relaying, saved, waits
from tests.site import Site, ids, row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def test_lost_history_is_filled_from_the_collection(pulsar_site: Site) -> None:
    """A token that the server has lost: what was not sent is sent, what was sent is not."""
    plain = pulsar_site.subscribe()
    with relaying(pulsar_site):
        written = pulsar_site.insert(50)
        saved(pulsar_site, 50)
    written += pulsar_site.insert(50, first=50)
    broken = {"_data": "82" + "0" * 60}
    pulsar_site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"resumeToken": broken}})
    with relaying(pulsar_site, wait=False) as relay:
        assert ids(pulsar_site.receive(plain, 100)) == written
        written += pulsar_site.insert(5, first=100)
        assert ids(pulsar_site.receive(plain, 5)) == written[-5:]
        assert relay.status.counts.events_sent == 55


def test_a_first_start_with_many_pages_sends_each_row_once_in_order(pulsar_site: Site) -> None:
    """The next pages are read while the first ones are sent."""
    plain = pulsar_site.subscribe()
    written = sorted(pulsar_site.insert(BATCH_ROWS * 5 + 1))
    with relaying(pulsar_site):
        written += pulsar_site.insert(10)
        assert ids(pulsar_site.receive(plain, len(written))) == written


def test_a_crash_while_filling_lost_history_repeats_nothing(pulsar_site: Site) -> None:
    """The scan is noted in the checkpoint; the next term begins it again."""
    plain = pulsar_site.subscribe()
    with relaying(pulsar_site):
        written = pulsar_site.insert(20)
        saved(pulsar_site, 20)
    before = pulsar_site.checkpoint
    written += pulsar_site.insert(20, first=20)
    checkpoints = pulsar_site.database[wire.CHECKPOINTS]
    checkpoints.update_one({}, {"$set": {"resumeToken": {"_data": "82" + "0" * 60}}})
    with relaying(pulsar_site, wait=False):
        assert ids(pulsar_site.receive(plain, 40)) == written
    scan = {"since": before["clusterTime"].as_datetime() - timedelta(days=1)}
    scan["publishedSince"] = scan["since"] - timedelta(days=1)
    checkpoints.update_one({}, {"$set": {"scan": scan}})
    with relaying(pulsar_site, wait=False):
        written += pulsar_site.insert(1, first=40)
        assert ids(pulsar_site.receive(plain, 1)) == written[-1:]


def test_a_dropped_collection_ends_nothing(pulsar_site: Site) -> None:
    """Behind an invalidated stream the relay goes on with what is written afterwards."""
    plain = pulsar_site.subscribe()
    with relaying(pulsar_site):
        written = pulsar_site.insert(3)
        assert ids(pulsar_site.receive(plain, 3)) == written
        pulsar_site.outbox.drop()
        written = pulsar_site.insert(3)
        assert ids(pulsar_site.receive(plain, 3)) == written
        pulsar_site.outbox.rename("elsewhere")
        written = pulsar_site.insert(3)
        assert ids(pulsar_site.receive(plain, 3)) == written


def test_a_primary_that_steps_down_delays_and_loses_nothing(pulsar_site: Site) -> None:
    """The relay goes on with the next primary, which here is the same one."""
    with relaying(pulsar_site):
        written = pulsar_site.insert(10)
        with contextlib.suppress(AutoReconnect):
            pulsar_site.mongodb.admin.command(
                {"replSetStepDown": 2, "secondaryCatchUpPeriodSecs": 0, "force": True}
            )
        wait_until(
            lambda: pulsar_site.mongodb.admin.command("hello")["isWritablePrimary"],
            description="a primary",
        )
        written += pulsar_site.insert(10)
        saved(pulsar_site, 20)
    assert pulsar_site.stored() == written


def test_a_quiet_outbox_keeps_its_place_in_the_oplog(pulsar_site: Site) -> None:
    """The token in the checkpoint moves on while others write, or the oplog would roll past it."""
    with relaying(pulsar_site, idle_checkpoint_seconds=0.2):
        pulsar_site.insert(1)
        first = saved(pulsar_site, 1)
        pulsar_site.database["others"].insert_one({})
        wait_until(
            lambda: pulsar_site.checkpoint["clusterTime"] > first["clusterTime"],
            description="a later token",
        )
        assert pulsar_site.checkpoint["resumeToken"] != first["resumeToken"]
        assert pulsar_site.checkpoint["position"] == 1


def test_a_transaction_of_ten_thousand_events(pulsar_site: Site) -> None:
    """All of them, in order."""
    plain = pulsar_site.subscribe()
    with relaying(pulsar_site):
        rows = [row(n) for n in range(10_000)]
        with pulsar_site.mongodb.start_session() as session, session.start_transaction():
            pulsar_site.outbox.insert_many(rows, session=session)
        assert ids(pulsar_site.receive(plain, 10_000)) == [str(r["_id"]) for r in rows]


@pytest.fixture(scope="module")
def failing_mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoDB]:
    """Lend a MongoDB that can be told to fail."""
    server = MongoDB(
        tmp_path_factory.mktemp("failing"),
        port=free_port(),
        more=["--setParameter", "enableTestCommands=1"],
    )
    yield from running(server)


@pytest.fixture
def failing_site(failing_mongodb: MongoDB, site_on: Callable[[str], Site]) -> Site:
    """Lend a site on that MongoDB."""
    return site_on(failing_mongodb.url)


def fail_once(site: Site, command: str, code: int) -> None:
    """Have the server refuse a relay's next command."""
    data = {"failCommands": [command], "appName": "postroom-relay", "errorCode": code}
    site.mongodb.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=data)


# ChangeStreamHistoryLost, ChangeStreamFatalError, InvalidResumeToken.
@pytest.mark.parametrize("code", [286, 280, 260])
@pytest.mark.parametrize("running", [False, True])
def test_each_way_to_lose_history_leads_to_the_collection(
    failing_site: Site, code: int, *, running: bool
) -> None:
    """As a term begins, or in the middle of one: nothing is lost, and nothing sent again."""
    plain = failing_site.subscribe()
    with relaying(failing_site) as relay:
        written = failing_site.insert(5)
        saved(failing_site, 5)
        if running:
            fail_once(failing_site, "getMore", code)
            wait_until(lambda: relay.status.counts.terms == 2, description="the second term")
            written += failing_site.insert(5)
            assert ids(failing_site.receive(plain, 10)) == written
    if not running:
        written += failing_site.insert(5)
        fail_once(failing_site, "aggregate", code)
        with relaying(failing_site, wait=False) as relay:
            assert ids(failing_site.receive(plain, 10)) == written
            assert (relay.status.counts.events_sent, relay.status.counts.skipped) == (5, 5)


def test_a_quarantined_row_that_is_retried_is_neither_pruned_nor_forgotten(
    failing_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is older than what the relay has reached, its event is not: lost history finds it."""
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.2)
    site = failing_site
    old = datetime.now(UTC) - timedelta(days=9)
    poison = row(0) | {"_id": ObjectId.from_datetime(old), "data": {"name": "Mended"}}
    with relaying(site, history_margin_hours=1) as relay:
        site.outbox.insert_one(poison)
        wait_until(
            lambda: relay.status.counts.quarantined_by_this_relay == 1, description="the quarantine"
        )
        written = site.insert(1)
        saved(site, 2)
    (entry,) = site.database[wire.QUARANTINE].find()
    assert abs(entry["quarantinedAt"] - datetime.now(UTC)) < timedelta(minutes=1)
    site.outbox.update_one({"_id": poison["_id"]}, {"$set": {"data.data": {}}})
    quarantine = Quarantine(site.database, partition=DEFAULT_PARTITION)
    assert quarantine.retry(poison["_id"])
    assert (quarantine.count(), quarantine.entries()) == (0, [])
    prune = Retention(
        site.database,
        quarantine,
        partition=DEFAULT_PARTITION,
        age=timedelta(days=1),
        margin=timedelta(hours=1),
        pruned=lambda _: None,
    ).prune
    assert prune() == 0
    plain = site.subscribe()
    fail_once(site, "aggregate", 286)
    with relaying(site, wait=False, history_margin_hours=1):
        assert ids(site.receive(plain, 2)) == [*written, str(poison["_id"])]
        wait_until(lambda: "scan" not in site.checkpoint, description="the scan's end")
    retried = {"$set": {"retriedAt": datetime.now(UTC) - timedelta(hours=2)}}
    site.database[wire.QUARANTINE].update_one({}, retried)
    assert prune() == 1
    assert site.outbox.find_one({"_id": poison["_id"]}) is None


def test_rows_of_other_partitions_are_left_alone(pulsar_site: Site) -> None:
    """Before the first start and afterwards."""
    plain = pulsar_site.subscribe()
    pulsar_site.insert(5, partition="tenant-2")
    written = pulsar_site.insert(5)
    with relaying(pulsar_site):
        pulsar_site.insert(5, partition="tenant-2")
        written += pulsar_site.insert(5)
        assert ids(pulsar_site.receive(plain, 10)) == written


def test_an_outside_fence_ends_the_term_and_nothing_is_lost(pulsar_site: Site) -> None:
    """Whoever fences us out: the relay begins a new term and goes on, each event once."""
    plain = pulsar_site.subscribe()
    with relaying(pulsar_site) as relay:
        written = pulsar_site.insert(10)
        saved(pulsar_site, 10)
        other = pulsar_site.pulsar.create_producer(
            pulsar_site.topic, access_mode=pulsar.ProducerAccessMode.ExclusiveWithFencing
        )
        other.close()
        written += pulsar_site.insert(10)
        assert ids(pulsar_site.receive(plain, 20)) == written
        assert relay.status.counts.terms == 2


@pytest.mark.parametrize("where", ["replies", "save"])
def test_a_thread_that_dies_ends_the_term_and_the_next_one_goes_on(
    lite_site: Site, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The reader's and the checkpoint's: nothing is lost, and the reason is seen."""
    lite_site.subscribe()
    died: list[str] = []

    def dying(function: Any) -> Any:
        def once(*args: Any, **options: Any) -> Any:
            if len(died) < 1 and (where == "replies" or options["position"]):
                died.append(where)
                raise KeyError(where)
            return function(*args, **options)

        return once

    owner: Any = origin if where == "replies" else CheckpointStore
    monkeypatch.setattr(owner, where, dying(getattr(owner, where)))
    with relaying(lite_site, wait=False) as relay:
        wait_until(lambda: relay.status.counts.terms > 0, description="a term")
        # The topic is read: at times the embedded broker leaves a subscription without the rest.
        written = lite_site.insert(5)
        saved(lite_site, 5)
        written += lite_site.insert(5)
        saved(lite_site, 10)
        assert lite_site.stored() == written
        assert died == [where]
        wait_until(lambda: relay.status.counts.terms == 2, description="the second term")


def test_an_unloaded_topic_is_no_end(pulsar_site: Site) -> None:
    """Topics move between brokers; the producer reconnects and repeats nothing."""
    with relaying(pulsar_site):
        written = pulsar_site.insert(10)
        saved(pulsar_site, 10)
        for topic in (pulsar_site.topic, f"{pulsar_site.topic}-mutex"):
            pulsar_site.admin("PUT", "/unload", topic=topic)
        written += pulsar_site.insert(10)
        saved(pulsar_site, 20)
    # A consumer that is disconnected gets some again, so the topic itself is read.
    assert pulsar_site.stored() == written


def test_bson_values_travel_by_the_documented_rules(pulsar_site: Site) -> None:
    """Each type that JSON lacks has one form; one without a form goes into quarantine."""
    plain = pulsar_site.subscribe()
    at = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    data = {
        "id": ObjectId("65a1b2c3d4e5f60718293a4b"),
        "at": at,
        "price": Decimal128("1.50"),
        "raw": Binary(b"\x00\xff"),
        "nan": float("nan"),
        "long": 2**60,
    }
    with relaying(pulsar_site) as relay:
        pulsar_site.outbox.insert_one(row(0) | {"data": {"name": "Odd", "data": data}})
        pulsar_site.insert(1)
        poison = row(0) | {"data": {"name": "Odd", "data": {"x": re.compile("a")}}}
        pulsar_site.outbox.insert_one(poison)
        first, _ = pulsar_site.receive(plain, 2)
        wait_until(
            lambda: relay.status.counts.quarantined_by_this_relay == 1, description="the quarantine"
        )
    assert orjson.loads(first.data())["data"] == {
        "id": "65a1b2c3d4e5f60718293a4b",
        "at": "2026-01-02T03:04:05.678000Z",
        "price": "1.50",
        "raw": "AP8=",
        "nan": None,
        "long": 2**60,
    }


def test_clocks_hours_apart_change_no_order(pulsar_site: Site) -> None:
    """The order is that of commits, whatever the writers' clocks and ids say."""
    plain = pulsar_site.subscribe()
    written = []
    with relaying(pulsar_site):
        for hours in (0, 5, -5, 2):
            at = datetime.now(UTC) + timedelta(hours=hours)
            own = row(hours) | {"occurredAt": at, "_id": ObjectId.from_datetime(at)}
            pulsar_site.outbox.insert_one(own)
            written.append(str(own["_id"]))
        assert ids(pulsar_site.receive(plain, 4)) == written


def test_a_row_that_cannot_be_decoded_is_known_by_its_id(pulsar_site: Site) -> None:
    """Neither a scan, where it is the last row, nor the stream ends at it; its row is kept."""
    plain = pulsar_site.subscribe()
    bad = {"data": {"name": "Bad", "data": {"uuid": Binary(b"too short", 4)}}}
    written = pulsar_site.insert(2)
    poison = [row(0) | bad for _ in range(2)]
    pulsar_site.outbox.insert_one(poison[0])
    with relaying(pulsar_site) as relay:
        assert ids(pulsar_site.receive(plain, 2)) == written
        pulsar_site.outbox.insert_one(poison[1])
        written = pulsar_site.insert(2)
        assert ids(pulsar_site.receive(plain, 2)) == written
        wait_until(
            lambda: relay.status.counts.quarantined_by_this_relay == 2, description="the quarantine"
        )
    entries = {entry["_id"] for entry in pulsar_site.database[wire.QUARANTINE].find()}
    assert entries == {each["_id"] for each in poison}


def test_an_event_that_is_larger_than_the_broker_takes_is_no_silent_loss(
    pulsar_site: Site,
) -> None:
    """Where the settings allow more than the broker, its refusal makes the event poison."""
    plain = pulsar_site.subscribe()
    with relaying(pulsar_site, max_message_bytes=32 << 20) as relay:
        large = row(0) | {"data": {"name": "Large", "data": {"text": "x" * (6 << 20)}}}
        rows = [row(1), large, row(2), row(3)]
        with pulsar_site.mongodb.start_session() as session, session.start_transaction():
            pulsar_site.outbox.insert_many(rows, session=session)
        good = [str(each["_id"]) for each in rows if each is not large]
        assert ids(pulsar_site.receive(plain, 3)) == good
        wait_until(
            lambda: relay.status.counts.quarantined_by_this_relay == 1, description="the quarantine"
        )
        written = pulsar_site.insert(1)
        assert ids(pulsar_site.receive(plain, 1)) == written


def test_lost_history_finds_rows_with_ids_of_any_kind(pulsar_site: Site) -> None:
    """Strings and numbers sort before all ObjectIds; those that were not sent are found too."""
    plain = pulsar_site.subscribe()
    with relaying(pulsar_site):
        written = pulsar_site.insert(5)
        saved(pulsar_site, 5)
    pulsar_site.outbox.insert_many([row(n) | {"_id": key} for n, key in enumerate(("a", 7))])
    broken = {"_data": "82" + "0" * 60}
    pulsar_site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"resumeToken": broken}})
    with relaying(pulsar_site, wait=False):
        assert ids(pulsar_site.receive(plain, 7)) == [*written, '{"$numberInt": "7"}', "a"]


def test_partitions_named_by_setting_or_queue_meet_on_one_mutex(pulsar_site: Site) -> None:
    """A relay of another partition stands in nobody's way, one of the same stands by."""
    name = {"POSTROOM_PARTITION": "tenant-1"}
    first = pulsar_site.relay(**name)
    first.wait_for("Relaying partition 'tenant-1'")
    default = pulsar_site.relay()
    default.wait_for("Relaying partition 'default'")
    second = pulsar_site.start("celery -A tasks worker -Q relay.tenant-1 --loglevel=INFO")
    second.wait_for("standing by")


def test_a_topic_that_cannot_be_opened_holds_up_nothing(pulsar_site: Site) -> None:
    """Events that are routed to it go into quarantine."""
    plain = pulsar_site.subscribe()
    topics = {"Lost": "persistent://public/no-such-namespace/x"}
    with relaying(pulsar_site, topics=topics) as relay:
        written = pulsar_site.insert(1)
        pulsar_site.insert(1, name="Lost")
        written += pulsar_site.insert(1)
        assert ids(pulsar_site.receive(plain, 2)) == written
        wait_until(
            lambda: relay.status.counts.quarantined_by_this_relay == 1, description="the quarantine"
        )
    (entry,) = pulsar_site.database[wire.QUARANTINE].find()
    assert "no-such-namespace" in entry["reason"]


def test_block_stops_at_poison_and_says_so(pulsar_site: Site) -> None:
    """POSTROOM_ON_POISON=block: nothing behind it is sent until it is mended or removed."""
    plain = pulsar_site.subscribe()
    with relaying(pulsar_site, on_poison="block") as relay:
        before = pulsar_site.insert(2)
        poison = {**row(0), "data": {"name": 7}}
        pulsar_site.outbox.insert_one(poison)
        behind = pulsar_site.insert(2)
        wait_until(lambda: waits(relay), description="it waits")
        assert str(poison["_id"]) in relay.status.reason
        assert "POSTROOM_ON_POISON=block" in relay.status.reason
        assert ids(pulsar_site.receive(plain, 2)) == before
        pulsar_site.outbox.update_one({"_id": poison["_id"]}, {"$set": {"data.name": "Mended"}})
        pulsar_site.outbox.update_one({"_id": poison["_id"]}, {"$set": {"data.data": {}}})
        mended, *after = pulsar_site.receive(plain, 3)
        assert ids([mended]) == [str(poison["_id"])]
        assert orjson.loads(mended.data()) == {"name": "Mended", "data": {}}
        assert ids(after) == behind
        removed = {**row(0), "data": {"name": 8}}
        pulsar_site.outbox.insert_one(removed)
        behind = pulsar_site.insert(1)
        wait_until(lambda: str(removed["_id"]) in relay.status.reason, description="it waits")
        pulsar_site.outbox.delete_one({"_id": removed["_id"]})
        assert ids(pulsar_site.receive(plain, 1)) == behind


def test_routing_to_several_topics(pulsar_site: Site) -> None:
    """Each topic has its events in order; lanes are opened as events come."""
    other = f"{pulsar_site.topic}-other"
    plain, second = pulsar_site.subscribe(), pulsar_site.subscribe(topic=other)
    with relaying(pulsar_site, topics={"Other*": other}):
        here = pulsar_site.insert(3)
        there = pulsar_site.insert(3, name="OtherThing")
        here += pulsar_site.insert(3)
        assert ids(pulsar_site.receive(plain, 6)) == here
        assert ids(pulsar_site.receive(second, 3)) == there
    there = pulsar_site.insert(2, name="OtherThing")
    with relaying(pulsar_site, topics={"Other*": other}):
        assert ids(pulsar_site.receive(second, 2)) == there


def test_sent_rows_are_marked_where_asked_for(pulsar_site: Site) -> None:
    """POSTROOM_MARK_SENT=1 writes Hermes' sentAt."""
    with relaying(pulsar_site, mark_sent=True):
        pulsar_site.insert(10)
        saved(pulsar_site, 10)
        sent = {"sentAt": {"$type": "date"}}
        wait_until(lambda: pulsar_site.outbox.count_documents(sent) == 10, description="marks")


def test_relayed_rows_are_pruned_and_unsent_ones_never(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older than the retention and than the checkpoint less the margin: gone; the rest stays."""
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.5)
    old = datetime.now(UTC) - timedelta(days=3)
    sent = [row(n) | {"_id": ObjectId.from_datetime(old + timedelta(seconds=n))} for n in range(20)]
    pulsar_site.outbox.insert_many(sent)
    before = old - timedelta(hours=1)
    poison = row(0) | {"_id": ObjectId.from_datetime(before), "data": {"name": 7}}
    pulsar_site.outbox.insert_one(poison)
    pulsar_site.outbox.insert_one(sent[0] | {"_id": ObjectId(), "partitionKey": "other"})
    fresh = pulsar_site.insert(5)
    with relaying(pulsar_site, retention_days=1, history_margin_hours=1) as relay:
        wait_until(lambda: relay.status.counts.pruned == 20, description="the rows are pruned")
    left = {str(found["_id"]) for found in pulsar_site.outbox.find({"partitionKey": "default"})}
    assert left == {*fresh, str(poison["_id"])}
    assert pulsar_site.outbox.count_documents({"partitionKey": "other"}) == 1


def test_a_broker_without_fencing_is_refused_where_exactly_once_is_demanded(
    lite_site: Site,
) -> None:
    """The sentence says what is lacking and what to do."""
    settings = lite_site.settings(delivery="exactly_once")
    relay = Relay(settings, Routing(default=settings.topic, topics={}, key=None))
    with pytest.raises(ConfigurationError, match="lacks fencing and deduplication"):
        relay.run()


def test_a_broker_without_fencing_is_named_in_one_line(
    lite_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """What still holds, what does not, and how to turn it on; then it relays."""
    with relaying(lite_site, wait=False) as relay:
        wait_until(lambda: relay.status.counts.terms == 1, description="a term")
    (line,) = (r.getMessage() for r in caplog.records if getattr(r, "action", "") == "probe")
    assert "lacks fencing and deduplication" in line
    assert "every event still arrives, in order" in line
    assert "may send some twice" in line
    assert "set-deduplication -e" in line


@pytest.fixture
def undeduplicated(pulsar_site: Site) -> Site:
    """Lend a site whose namespace has no deduplication, which hides most of a missing tail."""
    make_undeduplicated(pulsar_site.environment["POSTROOM_PULSAR_ADMIN_URL"])
    pulsar_site.topic = Topic(pulsar_site.topic.replace("public/default", UNDEDUPLICATED))
    pulsar_site.environment["POSTROOM_TOPIC"] = pulsar_site.topic
    return pulsar_site


@pytest.mark.parametrize("tail", [True, False])
def test_the_tail_is_what_keeps_a_crash_from_repeating(
    undeduplicated: Site, monkeypatch: pytest.MonkeyPatch, *, tail: bool
) -> None:
    """Events stored after the last checkpoint come once with the tail, and twice without it."""
    site = undeduplicated
    plain = site.subscribe()
    with relaying(site):
        written = site.insert(10)
        before = saved(site, 10)
        written += site.insert(10, first=10)
        saved(site, 20)
    # As if the relay had been killed before it wrote its last checkpoint.
    site.database[wire.CHECKPOINTS].replace_one({}, before)
    if not tail:
        monkeypatch.setattr(TailReader, "read", lambda *_, **__: Tail())
    with relaying(site, wait=False):
        written += site.insert(1, first=20)
        received = ids(site.receive(plain, 21 if tail else 31))
    if tail:
        assert received == written
    else:
        assert received == written[:20] + written[10:]
