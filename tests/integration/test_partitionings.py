"""Into how many outbox partitions an outbox is divided: recorded, checked, changed."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from bson import ObjectId, Timestamp
from pymongo import AsyncMongoClient, MongoClient
from pymongo import errors as mongo

from postroom import AsyncOutbox, DomainEvent, Outbox, errors, wire
from postroom.findings import Grade
from postroom.operations.examining import mongodb as examining
from postroom.operations.wiring import Wiring
from postroom.partitioning import DEFAULT_PARTITION, OutboxPartition, Partitioning
from postroom.relay.reading.stream import open_stream
from postroom.relay.watching.view import closed_partitions, views
from postroom.routing import Routing
from postroom.store import generations
from postroom.store.beginnings import begin_at
from postroom.store.outbox_rows import OutboxRows
from postroom.store.partitioner import Partitioner
from postroom.store.partitioning_record import Record, read, run
from postroom.store.partitionings import to_relay
from postroom.store.quarantine import Quarantine, Quarantined
from postroom.store.values import ResumeToken
from tests.relays import relaying, saved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.site import Site


class Assigned(DomainEvent, name="partitionings.Assigned", key="patient_id"):
    """A sample."""

    patient_id: str | int | None


@pytest.fixture
def database(lite_site: Site) -> Iterator[Any]:
    """Return the site's database by a client of its own, which has learnt nothing yet."""
    with MongoClient[Any](lite_site.settings().mongodb_uri) as client:
        yield client[lite_site.database.name]


def change(database: Any, count: int) -> None:
    """Divide the outbox anew, of which all is taken to be relayed."""
    record = run(database, read("default"))
    assert record is not None
    record = run(database, generations.begin(record, count))
    run(database, generations.open_next(run(database, generations.close(record))))


def stored(database: Any) -> dict[str, list[Any]]:
    """Return the keys by outbox partition, in the order of their ids."""
    found: dict[str, list[Any]] = {}
    for row in database[wire.OUTBOX].find().sort("_id"):
        found.setdefault(row["partitionKey"], []).append(row.get("key"))
    return found


def test_keys_are_stored_with_the_outbox_partition_that_is_theirs(database: Any) -> None:
    """By the text that the key is, and those without one over all."""
    outbox = Outbox(database, partitions=4)
    outbox.publish([Assigned(patient_id=str(n)) for n in range(50)])
    outbox.publish(Assigned(patient_id=5))
    outbox.publish([Assigned(patient_id=None) for _ in range(40)])
    four = Partitioning(count=4)
    assert set(stored(database)) == set(four.names)
    for name, keys in stored(database).items():
        assert {four.of_key(key) for key in keys if key is not None} <= {four.index_of(name)}
        assert len([key for key in keys if key is None]) == 10


def test_all_ways_to_publish_place_alike(database: Any, lite_site: Site) -> None:
    """Within a scope, a callback, a session, and with asyncio."""
    outbox, event = Outbox(database, partitions=4), Assigned(patient_id="k1")
    with outbox.scope() as tx:
        tx.publish(event)
    outbox.transact(lambda tx: tx.publish([event]))
    with database.client.start_session() as session, session.start_transaction():
        outbox.publish(event, session=session)

    async def asynchronously() -> None:
        async with AsyncMongoClient[Any](lite_site.settings().mongodb_uri) as client:
            await AsyncOutbox(client[database.name], partitions=4).publish(event)

    asyncio.run(asynchronously())
    assert stored(database) == {f"default-{Partitioning(count=4).of_key('k1')}": ["k1"] * 4}


def test_writers_and_relays_of_another_count_are_refused(database: Any) -> None:
    """By a sentence with both counts and what to do; one that may not look, by MongoDB."""
    Outbox(database, partitions=8).publish(Assigned(patient_id="p"))
    for other in (3, 1):
        with pytest.raises(
            errors.OtherPartitioning, match=f"has 8 .* is {other} here.*--to {other}"
        ):
            Outbox(database, partitions=other).publish(Assigned(patient_id="p"))
        with pytest.raises(errors.OtherPartitioning, match=rf"has 8 .* is {other} here"):
            run(database, to_relay("default", other))
    assert run(database, to_relay("default", 8)) == Partitioning(count=8)
    assert sum(map(len, stored(database).values())) == 1


def test_an_outbox_in_use_is_not_divided_by_whoever_comes(database: Any) -> None:
    """Rows of the one outbox partition may wait; nothing is recorded, and it goes on."""
    one = Outbox(database)
    one.publish(Assigned(patient_id="p"))
    with pytest.raises(errors.OtherPartitioning, match=r"has 1 outbox partition, .* is 4 here"):
        Outbox(database, partitions=4).publish(Assigned(patient_id="p"))
    one.publish(Assigned(patient_id="p"))
    assert stored(database) == {"default": ["p", "p"]}
    assert wire.PARTITIONS not in database.list_collection_names()


def test_one_outbox_partition_leaves_nothing_and_asks_for_nothing(database: Any) -> None:
    """No record, and no validator."""
    Outbox(database).publish(Assigned(patient_id="p"))
    assert run(database, to_relay("default", 1)) == Partitioning()
    assert wire.PARTITIONS not in database.list_collection_names()
    assert "validator" not in database[wire.OUTBOX].options()


def test_late_writers_of_an_old_generation_are_refused_by_mongodb(database: Any) -> None:
    """Whatever they have learnt before, however old their transaction is."""
    early, late = Outbox(database, partitions=2), Outbox(database, partitions=2)
    early.publish(Assigned(patient_id="p"))
    with database.client.start_session() as session, session.start_transaction():
        database["other"].find_one(session=session)
        change(database, 4)
        with pytest.raises(errors.OtherPartitioning, match=r"has 4 .* is 2 here"):
            late.publish(Assigned(patient_id="p"), session=session)
        session.abort_transaction()
    with pytest.raises(errors.OtherPartitioning):
        early.publish([Assigned(patient_id="p"), Assigned(patient_id="p")])
    Outbox(database, partitions=4).publish(Assigned(patient_id="k1"))
    assert f"default.2-{Partitioning(count=4).of_key('k1')}" in stored(database)
    assert sum(map(len, stored(database).values())) == 2
    assert run(database, to_relay("default", 4)) == Partitioning(count=4, generation=2)


def test_writers_outlive_a_change_there_and_back(database: Any) -> None:
    """A callback is run again; a scope is told to be."""
    outbox = Outbox(database, partitions=2)
    outbox.publish(Assigned(patient_id="p"))
    change(database, 4)
    change(database, 2)
    with pytest.raises(errors.PartitioningChanged), outbox.scope() as tx:
        tx.publish(Assigned(patient_id="p"))
    change(database, 2)
    outbox.publish(Assigned(patient_id="p"))
    assert {name.rpartition("-")[0] for name in stored(database)} == {"default", "default.4"}


def test_each_writer_is_told_of_a_change_whoever_has_learnt_of_it_first(database: Any) -> None:
    """Two threads have placed rows by what there was, and both are refused."""
    Outbox(database, partitions=2).publish(Assigned(patient_id="p"))
    shared = Partitioner.of_client(database.client, database.name, base="default", count=2)
    placed_by = shared.known
    change(database, 4)
    change(database, 2)
    for _ in range(2):
        with pytest.raises(errors.PartitioningChanged):
            run(database, shared.refused(placed_by))
        assert shared.known == Partitioning(count=2, generation=3)
    run(database, shared.refused(shared.known))


def test_who_places_a_row_while_another_thread_is_refused_places_it_nowhere_else(
    database: Any,
) -> None:
    """Than where MongoDB refuses it: outbox partitions that never were are closed to nobody."""
    Outbox(database).publish(Assigned(patient_id="p"))
    record = run(database, generations.begin(Record(partitioning=Partitioning()), 4))
    run(database, generations.open_next(run(database, generations.close(record))))
    Outbox(database, partitions=4).publish(Assigned(patient_id="p"))
    shared = Partitioner.of_client(database.client, database.name, base="default", count=4)
    placed_by = shared.known
    change(database, 8)
    with pytest.raises(errors.OtherPartitioning):
        run(database, shared.refused(placed_by))
    assert shared.known is None
    assert shared.of("p", ObjectId()) in Partitioning(count=4, generation=2).names


def test_closing_waits_for_transactions_that_have_written(database: Any) -> None:
    """So no row of the old generation is committed behind the time that is noted."""
    outbox = Outbox(database, partitions=2)
    outbox.publish(Assigned(patient_id="p"))
    record = run(database, read("default"))
    assert record is not None
    record = run(database, generations.begin(record, 4))
    with outbox.scope() as tx:
        tx.publish(Assigned(patient_id="p"))
        with pytest.raises(mongo.ExecutionTimeout):
            run(database, generations.close(record))
    closed = run(database, generations.close(record))
    assert closed.closed_at is not None
    assert sum(map(len, stored(database).values())) == 2
    with pytest.raises(errors.OtherPartitioning, match=r"is being changed from 2 .* to 4"):
        outbox.publish(Assigned(patient_id="p"))


def test_writers_of_the_next_number_write_before_relays_begin(database: Any) -> None:
    """From when the old ones are closed: the change is finished with that number, and no other."""
    old = Outbox(database, partitions=2)
    old.publish(Assigned(patient_id="k1"))
    record = run(database, read("default"))
    assert record is not None
    record = run(database, generations.close(run(database, generations.begin(record, 4))))
    new = Outbox(database, partitions=4)
    with pytest.raises(errors.OtherPartitioning, match=r"with 4 write as soon as"):
        new.publish(Assigned(patient_id="k1"))
    record = run(database, generations.let_write(record))
    new.publish(Assigned(patient_id="k1"))
    name = f"default.2-{Partitioning(count=4).of_key('k1')}"
    assert stored(database)[name] == ["k1"]
    with pytest.raises(errors.OtherPartitioning, match=r"set it to 4, with which is written"):
        old.publish(Assigned(patient_id="k1"))
    with pytest.raises(errors.PartitioningUnderWay):
        run(database, to_relay("default", 4))
    assert run(database, to_relay("default", 2)) == Partitioning(count=2)
    assert run(database, generations.begin(record, 8)) == record
    run(database, generations.open_next(record))
    new.publish(Assigned(patient_id="k1"))
    assert stored(database)[name] == ["k1"] * 2
    assert run(database, to_relay("default", 4)) == Partitioning(count=4, generation=2)


def test_a_change_that_has_closed_keeps_its_number_and_is_finished_once(database: Any) -> None:
    """By two operators; one that was stopped before it closed harms nothing of what follows."""
    Outbox(database, partitions=2).publish(Assigned(patient_id="k1"))
    record = run(database, read("default"))
    assert record is not None
    early = run(database, generations.begin(run(database, generations.begin(record, 8)), 4))
    closed = run(database, generations.close(early))
    assert run(database, generations.begin(closed, 8)).next_count == 4
    written = run(database, generations.let_write(closed))
    after = run(database, generations.open_next(written))
    assert after == Record(partitioning=Partitioning(count=4, generation=2), closed=after.closed)
    for step in (generations.close, generations.let_write, generations.open_next):
        for known in (early, closed, written, after):
            assert run(database, step(known)) == after
    Outbox(database, partitions=4).publish(Assigned(patient_id="k1"))
    change(database, 8)
    Outbox(database, partitions=8).publish(Assigned(patient_id="k1"))


def test_rows_of_a_closed_outbox_partition_are_relayed_without_a_mark(database: Any) -> None:
    """MongoDB refuses to change them, which is no reason for their relay to stand still."""
    Outbox(database).publish(Assigned(patient_id="k1"))
    (row,) = database[wire.OUTBOX].find()
    rows = OutboxRows(database, partition=DEFAULT_PARTITION)
    record = run(database, generations.begin(Record(partitioning=Partitioning()), 4))
    run(database, generations.close(record))
    rows.mark_sent([row["_id"]])
    assert list(database[wire.OUTBOX].find()) == [row]
    own = {"data.name": {"$ne": row["data"]["name"]}}
    database.command("collMod", wire.OUTBOX, validator=own)
    with pytest.raises(mongo.WriteError):
        OutboxRows(database, partition=OutboxPartition("other")).mark_sent([row["_id"]])


def test_where_the_first_relay_begins_is_said_once(database: Any) -> None:
    """Rows may be written behind the first token, which a second one would pass by."""
    Outbox(database).publish(Assigned(patient_id="k1"))
    tokens = [
        open_stream(database[wire.OUTBOX], partition=DEFAULT_PARTITION, after=Timestamp(at, 1))
        for at in (int(time.time()) - 1, int(time.time()))
    ]
    for token in tokens:
        begin_at(database, DEFAULT_PARTITION, token)
    (row,) = database[wire.CHECKPOINTS].find()
    assert row["resumeToken"] == tokens[0].document


def test_what_waits_longer_than_the_oplog_reaches_is_scanned(lite_site: Site) -> None:
    """A change may take long; where its first token is lost by then, the rows are not."""
    site = lite_site
    Outbox(site.database).publish(Assigned(patient_id="k1"))
    record = run(site.database, generations.begin(Record(partitioning=Partitioning()), 2))
    record = run(site.database, generations.close(record))
    name = record.following.names[0]
    begin_at(site.database, name, ResumeToken({"_data": "82" + "0" * 60}))
    now = {"clusterTime": Timestamp(int(time.time()), 1)}
    site.database[wire.CHECKPOINTS].update_one({"partitionKey": name}, {"$set": now})
    run(site.database, generations.let_write(record))
    keys = [k for k in map(str, range(20)) if Partitioning(count=2).of_key(k) == 0]
    ids = Outbox(site.database, partitions=2).publish([Assigned(patient_id=k) for k in keys])
    (view,) = [each for each in views(site.database).partitions if each.partition == name]
    assert (view.following, view.waiting, view.waiting_at_least) == (True, 0, True)
    for lag, grade in ((30, Grade.OK), (90, Grade.WARN)):
        (found,) = examining._partition(replace(view, lag_seconds=lag))
        assert "is being divided anew" in found.found
        assert (found.grade, "outbox partitions" in found.remedy) == (grade, lag > 60)
    run(site.database, generations.open_next(record))
    with relaying(site, wait=False, partition=name, mutex_topic=f"{site.topic}-m"):
        assert [m.properties()["id"] for m in site.receive(site.subscribe(), len(ids))] == ids


def test_a_validator_of_the_users_own_stays_in_force(database: Any) -> None:
    """Beside ours, and what it refuses is not said to be ours."""
    own = {"data.name": {"$ne": "Forbidden"}}
    database.create_collection(wire.OUTBOX, validator=own)
    outbox = Outbox(database, partitions=2)
    outbox.publish(Assigned(patient_id="p"))
    with pytest.raises(mongo.WriteError, match="failed validation"):
        outbox.publish({"name": "Forbidden", "data": {}})
    change(database, 4)
    ours = {"partitionKey": {"$nin": ["default", "default-0", "default-1"]}}
    assert database[wire.OUTBOX].options()["validator"] == {"$and": [own, ours]}


def test_a_validator_that_only_warns_cannot_close_anything(database: Any) -> None:
    """It is not made to refuse behind its owner's back; the sentence says what to do."""
    own = {"data.name": {"$ne": "Forbidden"}}
    database.create_collection(wire.OUTBOX, validator=own, validationAction="warn")
    with pytest.raises(errors.OutboxError, match="validationAction"):
        Outbox(database, partitions=2).publish(Assigned(patient_id="p"))
    assert stored(database) == {}


def test_a_process_that_was_killed_while_it_divided_is_finished_for(database: Any) -> None:
    """By whoever comes next with that count, wherever it stood."""
    database[wire.PARTITIONS].insert_one(
        {"_id": "default", "count": 1, "generation": 0, "nextCount": 4, "closed": []}
    )
    Outbox(database, partitions=4).publish(Assigned(patient_id="p"))
    assert run(database, to_relay("default", 4)) == Partitioning(count=4)
    with pytest.raises(errors.OtherPartitioning):
        Outbox(database).publish(Assigned(patient_id="p"))


def test_a_row_of_a_closed_outbox_partition_is_redriven_into_the_one_that_has_its_key(
    database: Any,
) -> None:
    """It was set aside before the outbox was divided anew, and MongoDB takes it nowhere else."""
    outbox = Outbox(database, partitions=2)
    (event_id,) = outbox.publish(Assigned(patient_id="k1"))
    old, row_id = f"default-{Partitioning(count=2).of_key('k1')}", ObjectId(event_id)
    quarantine = Quarantine(database, partition=OutboxPartition(old))
    quarantine.store([Quarantined(row_id=row_id, position=1, reason="once")])
    change(database, 4)
    assert quarantine.retry(row_id)
    new = f"default.2-{Partitioning(count=4).of_key('k1')}"
    assert stored(database) == {new: ["k1"]}
    assert database[wire.QUARANTINE].find_one()["partitionKey"] == new
    assert not quarantine.retry(row_id)


def test_outbox_partitions_of_before_want_no_relay(lite_site: Site) -> None:
    """They are closed, wherever the oplog reaches back to, and are no trouble to anybody."""
    database = lite_site.database
    with relaying(lite_site):
        lite_site.insert(3)
        saved(lite_site, 3)
    Outbox(database)
    record = Record(partitioning=Partitioning())
    record = run(database, generations.begin(record, 2))
    record = run(database, generations.close(record))
    assert not closed_partitions(database)  # what it has may wait yet
    run(database, generations.open_next(record))
    # As after days, in which the oplog has rolled over.
    database[wire.CHECKPOINTS].update_one({}, {"$set": {"clusterTime": Timestamp(1, 1)}})
    assert closed_partitions(database) == {DEFAULT_PARTITION}
    (old, *new) = views(database).partitions
    assert (old.partition, old.closed, old.waiting, old.waiting_at_least) == (
        DEFAULT_PARTITION, True, 0, False,
    )  # fmt: skip
    assert [(each.partition, each.closed) for each in new] == [
        ("default.2-0", False),
        ("default.2-1", False),
    ]
    routing = Routing(default="public/default/t", topics={}, key=None)
    wiring = Wiring(settings=lite_site.settings(), routing=routing, consume={})
    found = examining.examine(database, wiring)
    assert [each.found for each in found if each.what == "outbox partition default"] == [
        "It is closed, and all of it was relayed before"
    ]
    assert "oplog for outbox partition default" not in {each.what for each in found}


def test_relays_that_make_the_collection_at_once_are_all_content(database: Any) -> None:
    """Whoever comes second finds it made; nothing is tried again, and nothing is logged."""
    rows = OutboxRows(database, partition=DEFAULT_PARTITION)
    for _ in range(20):
        database[wire.OUTBOX].drop()
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(rows.ensure_collection) for _ in range(4)]:
                done.result()
        assert rows.collection() is not None
