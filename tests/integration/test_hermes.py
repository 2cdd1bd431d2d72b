"""Beside Hermes for MongoDB: its rows and checkpoint, and its own test scenarios, ported.

Its tests look at rows and checkpoints; these also at what was published, in which order, how often.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pulsar
import pytest

from postroom import Outbox, wire
from tests.relays import relaying, saved, waits
from tests.site import ids
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site


def event(number: int) -> dict[str, Any]:
    """Return an event as Hermes' users write it."""
    return {"name": "MedicineAssigned", "data": {"medicineId": f"m{number}", "patientId": "p"}}


def last(site: Site, event_id: str, partition: str = "default") -> None:
    """Wait until the checkpoint stands on an event."""
    checkpoints = site.database[wire.CHECKPOINTS]

    def stands() -> bool:
        row = checkpoints.find_one({"partitionKey": partition}) or {}
        return str(row.get("lastProcessedId")) == event_id

    wait_until(stands, description="the checkpoint is on the last event")


def test_the_checkpoint_row_is_one_that_hermes_reads(pulsar_site: Site) -> None:
    """Its fields and its index are there from the first start on, with a token."""
    with relaying(pulsar_site):
        row = pulsar_site.checkpoint
    assert {"lastProcessedId", "resumeToken", "createdAt", "lastUpdatedAt"} <= row.keys()
    assert isinstance(row["resumeToken"]["_data"], str)
    assert "update" not in row
    index = pulsar_site.database[wire.CHECKPOINTS].index_information()["idx_partitionKey_asc"]
    assert index["unique"]
    assert index["key"] == [("partitionKey", 1)]


def test_one_event_in_the_callers_transaction(pulsar_site: Site) -> None:
    """simple.test.ts: the row has its exact shape, the checkpoint is on it, it came once."""
    plain, outbox = pulsar_site.subscribe(), Outbox(pulsar_site.database)
    with relaying(pulsar_site):
        assert pulsar_site.checkpoint["lastProcessedId"] is None
        with pulsar_site.mongodb.start_session() as session, session.start_transaction():
            (event_id,) = outbox.publish(event(1), session)
        (row,) = pulsar_site.outbox.find()
        # A key stands behind them where a class of that name, of other tests here, names one.
        assert list(row)[:4] == ["_id", "partitionKey", "occurredAt", "data"]
        assert row["data"] == event(1)
        assert ids(pulsar_site.receive(plain, 1)) == [event_id]
        last(pulsar_site, event_id)


def test_many_at_once_in_order(pulsar_site: Site) -> None:
    """many-at-once-in-order.test.ts and the array of simple.test.ts."""
    plain, outbox = pulsar_site.subscribe(), Outbox(pulsar_site.database)
    with relaying(pulsar_site):
        written = outbox.publish([event(1), event(2)])
        with outbox.scope() as tx:
            for number in range(5):
                written += tx.publish(event(number))
        assert ids(pulsar_site.receive(plain, 7)) == written
        last(pulsar_site, written[-1])
    assert [str(row["_id"]) for row in pulsar_site.outbox.find()] == written


def test_a_callback_that_throws_leaves_nothing(pulsar_site: Site) -> None:
    """simple.test.ts and withScope.test.ts: neither document nor event, checkpoint untouched."""
    plain, outbox = pulsar_site.subscribe(), Outbox(pulsar_site.database)
    with relaying(pulsar_site):

        def fail(tx: Any) -> None:
            pulsar_site.database["things"].insert_one({}, session=tx.session)
            tx.publish(event(1))
            raise KeyError

        with pytest.raises(KeyError):
            outbox.transact(fail)
        assert pulsar_site.checkpoint["lastProcessedId"] is None
        assert pulsar_site.database["things"].count_documents({}) == 0
        assert pulsar_site.receive(plain, 0) == []


def test_resuming_goes_on_behind_the_last_event(pulsar_site: Site) -> None:
    """resuming.test.ts: what was sent is not sent again, what was not sent is."""
    plain, outbox = pulsar_site.subscribe(), Outbox(pulsar_site.database)
    with relaying(pulsar_site):
        written = outbox.publish([event(n) for n in range(3)])
        last(pulsar_site, written[-1])
    written += outbox.publish([event(n) for n in range(3, 5)])
    with relaying(pulsar_site, wait=False):
        assert ids(pulsar_site.receive(plain, 5)) == written
        last(pulsar_site, written[-1])


def test_failed_deliveries_leave_the_checkpoint_on_the_last_that_was_stored(
    pulsar_site: Site,
) -> None:
    """failed-deliveries.test.ts: the first is sent, then publishing always fails."""
    outbox = Outbox(pulsar_site.database)
    with relaying(pulsar_site) as relay:
        (first,) = outbox.publish(event(0))
        saved(pulsar_site, 1)
        pulsar_site.admin("POST", "/terminate")
        written = [first, *outbox.publish([event(n) for n in range(1, 5)])]
        wait_until(lambda: waits(relay), description="it waits")
        assert "Pulsar" in relay.status.reason
    assert [str(row["_id"]) for row in pulsar_site.outbox.find()] == written
    assert str(pulsar_site.checkpoint["lastProcessedId"]) == first
    assert pulsar_site.stored() == [first]
    assert pulsar_site.database[wire.QUARANTINE].count_documents({}) == 0


def test_failed_deliveries_in_between_are_made_good(pulsar_site: Site) -> None:
    """failed-deliveries.test.ts: publishing fails twice, once, once; all are sent in the end."""
    plain, outbox = pulsar_site.subscribe(), Outbox(pulsar_site.database)
    written: list[str] = []
    with relaying(pulsar_site):
        for number, failures in enumerate((0, 2, 1, 1, 0)):
            for _ in range(failures):
                pulsar_site.pulsar.create_producer(
                    pulsar_site.topic, access_mode=pulsar.ProducerAccessMode.ExclusiveWithFencing
                ).close()
            written += outbox.publish(event(number))
        assert ids(pulsar_site.receive(plain, 5)) == written
        last(pulsar_site, written[-1])


def test_sent_timestamps(pulsar_site: Site) -> None:
    """events-with-sent-timestamps.test.ts: none before, then the time of sending, on each row."""
    outbox = Outbox(pulsar_site.database)
    written = outbox.publish([event(n) for n in range(5)])
    assert pulsar_site.outbox.count_documents({"sentAt": {"$exists": True}}) == 0
    before = datetime.now(UTC).replace(microsecond=0)
    with relaying(pulsar_site, mark_sent=True):
        last(pulsar_site, written[-1])
        rows = list(pulsar_site.outbox.find())
    assert all(before <= row["sentAt"] <= datetime.now(UTC) for row in rows)
    assert len({row["sentAt"] for row in rows}) == 1, "one write for all that went together"


def test_partitions_have_checkpoints_of_their_own(pulsar_site: Site) -> None:
    """partitioning.test.ts: two relays, five events in turn, each on its own last row."""
    outboxes = {
        name: Outbox(pulsar_site.database, partition=name) for name in ("tenant-1", "tenant-2")
    }
    plain = pulsar_site.subscribe(topic=f"{pulsar_site.topic}-1")
    other = pulsar_site.subscribe(topic=f"{pulsar_site.topic}-2")
    written: dict[str, list[str]] = {"tenant-1": [], "tenant-2": []}
    for number in range(5):
        for name, outbox in outboxes.items():
            written[name] += outbox.publish(event(number))
    short = pulsar_site.topic.removeprefix("persistent://")
    mutex = pulsar_site.environment["POSTROOM_MUTEX_TOPIC"]
    for n, (name, consumer) in enumerate((("tenant-1", plain), ("tenant-2", other)), 1):
        with relaying(
            pulsar_site,
            wait=False,
            partition=name,
            topic=f"{short}-{n}",
            mutex_topic=f"{mutex}-{n}",
        ):
            assert ids(pulsar_site.receive(consumer, 5)) == written[name]
            last(pulsar_site, written[name][-1], partition=name)


def test_a_checkpoint_of_hermes_is_continued_exactly(pulsar_site: Site) -> None:
    """From the middle of a transaction, with unknown fields kept and none of ours there yet."""
    plain, outbox = pulsar_site.subscribe(), Outbox(pulsar_site.database)
    pulsar_site.database.create_collection(wire.OUTBOX)
    with pulsar_site.outbox.watch([{"$match": {"operationType": "insert"}}]) as stream:
        stream.try_next()
        written = outbox.publish([event(n) for n in range(6)])
        for _ in range(3):
            change = next(stream)
    pulsar_site.database[wire.CHECKPOINTS].insert_one(
        {
            "partitionKey": "default",
            "lastProcessedId": change["fullDocument"]["_id"],
            "resumeToken": change["_id"],
            "theirs": "kept",
        }
    )
    with relaying(pulsar_site, wait=False):
        assert ids(pulsar_site.receive(plain, 3)) == written[3:]
        last(pulsar_site, written[-1])
    assert pulsar_site.checkpoint["theirs"] == "kept"


def test_a_checkpoint_that_has_relayed_nothing_sends_what_is_stored(pulsar_site: Site) -> None:
    """Hermes with a null token would skip all of it."""
    plain, outbox = pulsar_site.subscribe(), Outbox(pulsar_site.database)
    written = outbox.publish([event(n) for n in range(3)])
    pulsar_site.database[wire.CHECKPOINTS].insert_one(
        {"partitionKey": "default", "lastProcessedId": None, "resumeToken": None}
    )
    with relaying(pulsar_site, wait=False):
        assert ids(pulsar_site.receive(plain, 3)) == written


def test_hermes_goes_on_behind_our_token(pulsar_site: Site) -> None:
    """Its own stream, resumed with startAfter from our row, gives exactly what we did not send."""
    outbox = Outbox(pulsar_site.database)
    with relaying(pulsar_site):
        outbox.publish([event(n) for n in range(3)])
        saved(pulsar_site, 3)
    written = outbox.publish([event(n) for n in range(2)])
    pipeline = [{"$match": {"operationType": "insert", "fullDocument.partitionKey": "default"}}]
    token = pulsar_site.checkpoint["resumeToken"]
    with pulsar_site.outbox.watch(
        pipeline, full_document="whenAvailable", start_after=token
    ) as stream:
        assert [str(next(stream)["fullDocument"]["_id"]) for _ in range(2)] == written
