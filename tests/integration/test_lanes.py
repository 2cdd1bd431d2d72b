"""Lanes on real Apache Pulsar: what a topic is like, and what a message carries."""

from __future__ import annotations

import queue
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pulsar
import pytest

from postroom import broker, wire
from postroom.errors import ConfigurationError, TermEnded
from postroom.relay import term
from postroom.relay.relay import Relay
from postroom.relay.saving.tenure import Tenure
from postroom.relay.sending.cursors import Cursors
from postroom.relay.sending.opening import Opening
from postroom.routing import Routing
from postroom.store.checkpoints import CheckpointStore
from postroom.store.letter import Letter
from postroom.store.values import DEFAULT_PARTITION
from tests.relays import inexperienced, lane_options, relaying, saved
from tests.site import Site, ids, row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.relay.sending.acknowledgements import Refusal


def make_partitions(site: Site, topic: str, count: int) -> None:
    """Make a topic with partitions."""
    site.admin("PUT", "/partitions", topic=topic, body=str(count).encode())


def test_rows_that_bring_keys_end_the_batches_and_keep_their_order(pulsar_site: Site) -> None:
    """Rows with and without keys, more than one chunk of them, and the same again after a stop."""
    plain = pulsar_site.subscribe()
    written: list[str] = []
    for _ in range(2):
        with relaying(pulsar_site, wait=False):
            written += pulsar_site.insert(1000)
            keyed = [row(n) | {"key": f"patient-{n % 3}"} for n in range(1000)]
            pulsar_site.outbox.insert_many(keyed)
            written += [str(each["_id"]) for each in keyed]
            saved(pulsar_site, len(written))
    received = pulsar_site.receive(plain, 4000)
    assert ids(received) == written
    assert [message.partition_key() for message in received[1000:1003]] == [
        *("patient-0", "patient-1", "patient-2"),
    ]


def test_a_key_by_rule_is_that_of_each_message(pulsar_site: Site) -> None:
    """install(key=…) names the field of the data, or a function."""
    plain = pulsar_site.subscribe()
    with relaying(pulsar_site, key="number"):
        pulsar_site.insert(3)
        received = pulsar_site.receive(plain, 3)
    assert [message.partition_key() for message in received] == ["0", "1", "2"]


def test_a_delayed_event_between_others_loses_and_repeats_nothing(pulsar_site: Site) -> None:
    """What is to be delivered later leaves its batch: deduplication drops what is behind it."""
    shared = pulsar_site.pulsar.subscribe(
        pulsar_site.topic, "shared", consumer_type=pulsar.ConsumerType.Shared
    )
    rows = [row(n) for n in range(300)]
    later = datetime.now(UTC) + timedelta(seconds=3)
    for each in rows[50::100]:
        each["deliverAt"] = later
    with relaying(pulsar_site):
        pulsar_site.outbox.insert_many(rows)
        saved(pulsar_site, 300)
        assert pulsar_site.stored() == [str(each["_id"]) for each in rows]
        received = ids(pulsar_site.receive(shared, 300))
    assert received[-3:] == [str(each["_id"]) for each in rows[50::100]]
    assert sorted(received) == sorted(str(each["_id"]) for each in rows)


def test_large_headers_make_no_batch_too_large(pulsar_site: Site) -> None:
    """The client counts payloads alone, and says nothing of a batch that the broker refuses."""
    plain = pulsar_site.subscribe()
    rows = [row(n) | {"headers": {"trace": "x" * 30_000}} for n in range(400)]
    with relaying(pulsar_site):
        pulsar_site.outbox.insert_many(rows)
        saved(pulsar_site, 400)
        assert ids(pulsar_site.receive(plain, 400)) == [str(each["_id"]) for each in rows]


def fenced_opening(site: Site, refusals: queue.SimpleQueue[Refusal]) -> Opening:
    """Return what opens fenced lanes of a term without a checkpoint."""
    store = CheckpointStore(site.database, partition=DEFAULT_PARTITION, owner="test")
    store.begin_term()
    return Opening(
        site.pulsar,
        options=lane_options(timedelta(seconds=10)),
        routing=Routing(default=site.topic, topics={}, key=None),
        experience=inexperienced(),
        tenure=Tenure(store),
        cursors=Cursors(
            site.pulsar,
            subscription="relay",
            is_needed=True,
            keep=timedelta(0),
            experience=inexperienced(),
        ),
        tell=refusals.put,
        say=lambda _: None,
        stopping=threading.Event(),
        paused=threading.Event(),
    )


def test_nothing_leaves_a_lane_after_its_first_failure(pulsar_site: Site) -> None:
    """A burst that fails is heard of before its chunk is sealed, and nothing is sent behind it."""
    refusals: queue.SimpleQueue[Refusal] = queue.SimpleQueue()
    lane = fenced_opening(pulsar_site, refusals).open(pulsar_site.topic, None).lane
    pulsar_site.pulsar.create_producer(
        pulsar_site.topic, access_mode=pulsar.ProducerAccessMode.ExclusiveWithFencing
    )
    letters = [Letter(str(n), lane.topic, b"{}", None, 0, 0, {}, 2) for n in range(3)]
    with pytest.raises(TermEnded, match=r"fenced|lost"):
        for n, letter in enumerate(letters, 1):
            lane.queue(letter, n)
    with pytest.raises(TermEnded):
        lane.seal(lambda _: None)
    assert pulsar_site.stored() == []
    lane.outlet.close()


def test_a_partitioned_topic_is_refused(pulsar_site: Site) -> None:
    """Its acknowledgements come in no order, so nothing could be promised."""
    make_partitions(pulsar_site, pulsar_site.topic, 2)
    settings = pulsar_site.settings()
    relay = Relay(settings, Routing(default=settings.topic, topics={}, key=None))
    with pytest.raises(ConfigurationError, match=r"has 2 topic partitions.*-partition-0"):
        relay.run()
    topic = f"{pulsar_site.topic}-partition-0"
    pulsar_site.environment["POSTROOM_TOPIC"] = topic
    plain = pulsar_site.subscribe(topic=topic)
    with relaying(pulsar_site):
        written = pulsar_site.insert(3)
        assert ids(pulsar_site.receive(plain, 3)) == written


def test_a_partitioned_topic_that_is_met_later_holds_up_nothing(pulsar_site: Site) -> None:
    """A function routes there: its events go into quarantine, with the remedy."""
    plain = pulsar_site.subscribe()
    torn = f"{pulsar_site.topic}-torn"
    make_partitions(pulsar_site, torn, 3)
    with relaying(pulsar_site, topics=lambda name, _: torn if name == "Torn" else None) as relay:
        pulsar_site.insert(1, name="Torn")
        written = pulsar_site.insert(1)
        assert ids(pulsar_site.receive(plain, 1)) == written
        wait_until(
            lambda: relay.status.counts.quarantined_by_this_relay == 1, description="the quarantine"
        )
    (entry,) = pulsar_site.database[wire.QUARANTINE].find()
    assert "has 3 topic partitions" in entry["reason"]


def test_a_known_topic_that_got_partitions_keeps_no_term_from_opening(pulsar_site: Site) -> None:
    """It was made anew, and nothing is routed there any more."""
    torn = f"{pulsar_site.topic}-torn"

    def topics(name: str, _: object) -> str | None:
        return torn if name == "Torn" else None

    with relaying(pulsar_site, topics=topics):
        pulsar_site.insert(1, name="Torn")
        saved(pulsar_site, 1)
    pulsar_site.admin("DELETE", "?force=true", topic=torn)
    make_partitions(pulsar_site, torn, 2)
    plain = pulsar_site.subscribe()
    with relaying(pulsar_site):
        written = pulsar_site.insert(1)
        assert ids(pulsar_site.receive(plain, 1)) == written


def test_a_shared_topic_has_other_producers(pulsar_site: Site) -> None:
    """A topic declared shared is not fenced, and still nothing is sent twice after a stop."""
    plain = pulsar_site.subscribe()
    stranger = pulsar_site.pulsar.create_producer(pulsar_site.topic)
    with relaying(pulsar_site, shared=(pulsar_site.topic,)):
        written = pulsar_site.insert(3)
        assert ids(pulsar_site.receive(plain, 3)) == written
        stranger.send(b"x", properties={"id": "stranger"})
        assert ids(pulsar_site.receive(plain, 1)) == ["stranger"]
    written = pulsar_site.insert(3)
    with relaying(pulsar_site, shared=(pulsar_site.topic,)):
        assert ids(pulsar_site.receive(plain, 3)) == written


@pytest.mark.parametrize("first", [True, False])
def test_a_topic_that_is_declared_shared_since_a_crash_repeats_nothing(
    pulsar_site: Site, *, first: bool
) -> None:
    """Or no longer: what was sent behind the last checkpoint bears the other producer's name."""
    plain = pulsar_site.subscribe()
    shared: dict[bool, tuple[str, ...]] = {True: (pulsar_site.topic,), False: ()}
    with relaying(pulsar_site, shared=shared[first]):
        written = pulsar_site.insert(10)
        before = saved(pulsar_site, 10)
        written += pulsar_site.insert(10, first=10)
        saved(pulsar_site, 20)
    pulsar_site.database[wire.CHECKPOINTS].replace_one({}, before)
    with relaying(pulsar_site, shared=shared[not first], wait=False):
        written += pulsar_site.insert(1, first=20)
        assert ids(pulsar_site.receive(plain, 21)) == written


def test_two_services_share_a_topic(pulsar_site: Site, tmp_path: Path) -> None:
    """Their relays' producers have names of their own, though both are of partition `default`."""
    plain = pulsar_site.subscribe()
    second = Site(pulsar_site.environment, tmp_path)
    second.topic = second.environment["POSTROOM_TOPIC"] = pulsar_site.topic
    try:
        with (
            relaying(pulsar_site, shared=(pulsar_site.topic,)),
            relaying(second, shared=(pulsar_site.topic,)),
        ):
            written = pulsar_site.insert(20) + second.insert(20)
            assert sorted(ids(pulsar_site.receive(plain, 40))) == sorted(written)
    finally:
        second.close()


def test_what_others_sent_to_a_shared_topic_is_not_read_again(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint follows the topic's end while the relay has nothing in flight."""
    monkeypatch.setattr(term, "SHARED_ENDS_SECONDS", 0.2)
    stranger = pulsar_site.pulsar.create_producer(pulsar_site.topic)
    with relaying(pulsar_site, shared=(pulsar_site.topic,), idle_checkpoint_seconds=0.2):
        pulsar_site.insert(1)
        saved(pulsar_site, 1)
        last = [stranger.send(b"x", properties={"id": str(n)}) for n in range(50)][-1]

        def marked() -> bool:
            (lane,) = pulsar_site.checkpoint["lanes"]
            return str(pulsar.MessageId.deserialize(lane["messageId"])) == str(last)

        wait_until(marked, description="the mark is the last message's")
    written = pulsar_site.insert(2)
    with relaying(pulsar_site, shared=(pulsar_site.topic,)):
        saved(pulsar_site, 3)
    assert pulsar_site.stored()[-2:] == written


def test_a_client_of_a_topic_without_partitions_needs_no_more(lite_site: Site) -> None:
    """The compatible broker answers the question for partitions as well."""
    broker.require_unpartitioned(lite_site.pulsar, lite_site.topic)
