"""Rows of the plan that are not as publish() writes them: none of them holds up another one."""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import bson
import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient, monitoring

from postroom import Outbox, wire
from postroom.operations import scheduled
from postroom.operations.actions import Actor
from postroom.operations.filters import Filter
from postroom.partitioning import Partitioning
from postroom.relay.mover import Mover
from postroom.store.due_row import NO_DATE, NO_SLOT
from postroom.store.due_rows import DueRows
from postroom.store.odd_rows import OddRows
from postroom.store.partitioning_record import run
from postroom.store.partitionings import to_write
from postroom.store.scheduled_search import ScheduledSearch
from tests.relays import relaying
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    from tests.site import Site

PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime(2090, 1, 1, tzinfo=UTC)
GONE = object()
# What is put in the place of it is no UTF-8.
HERE = "HERE"
UNDECODABLE = "The row cannot be decoded (InvalidBSON)"
NEIGHBOURS = 40

# By a name: what differs from a row as publish() writes it, and why it is left, or None where it
# goes into the outbox, where the relay sets aside what cannot be sent.
ODD: dict[str, tuple[dict[str, Any], str | None]] = {
    "no slot": ({"slot": GONE}, NO_SLOT),
    "slot null": ({"slot": None}, NO_SLOT),
    "slot text": ({"slot": "3"}, NO_SLOT),
    "slot below 0": ({"slot": -4}, NO_SLOT),
    "slot broken": ({"slot": 8.5}, NO_SLOT),
    "slot nan": ({"slot": float("nan")}, NO_SLOT),
    "slot infinite": ({"slot": float("inf")}, NO_SLOT),
    "slot list": ({"slot": [0, 1]}, NO_SLOT),
    "slot yes": ({"slot": True}, NO_SLOT),
    "slot decimal": ({"slot": Decimal128("4")}, NO_SLOT),
    "slot double": ({"slot": 3.0}, None),
    "slot long": ({"slot": Int64(2**40)}, None),
    "due text": ({"dueAt": "2020-01-01T00:00:00Z"}, NO_DATE),
    "due number": ({"dueAt": 1577836800}, NO_DATE),
    "due timestamp": ({"dueAt": Timestamp(1577836800, 1)}, NO_DATE),
    "due list": ({"dueAt": [PAST]}, NO_DATE),
    "due dates": ({"dueAt": [FUTURE, PAST]}, NO_DATE),
    "due object": ({"dueAt": {"$date": "x"}}, NO_DATE),
    "due before year 1": ({"dueAt": DatetimeMS(-70_000_000_000_000)}, NO_DATE),
    "due empty": ({"dueAt": []}, NO_DATE),
    "due lists": ({"dueAt": [[PAST]]}, NO_DATE),
    "due null": ({"dueAt": None}, NO_DATE),
    "no due": ({"dueAt": GONE}, NO_DATE),
    "no time": ({"occurredAt": GONE}, None),
    "time beyond": ({"occurredAt": DatetimeMS(400_000_000_000_000)}, None),
    "no data": ({"data": GONE}, None),
    "data number": ({"data": 7}, None),
    "data text": ({"data": "x"}, None),
    "data nobody's": ({"data": {"name": 7, "data": []}}, None),
    "data undecodable": ({"data": {"name": "N", "data": {"a": HERE}}}, None),
    "data huge": ({"data": {"name": "N", "data": {"a": "x" * (15 << 20)}}}, None),
    "key number": ({"key": 7}, None),
    "key object": ({"key": {"a": 1}}, None),
    "key undecodable": ({"key": HERE}, UNDECODABLE),
    "headers text": ({"headers": "x"}, None),
    "name number": ({"schedule": 7}, None),
    "name list": ({"schedule": ["a", "b"]}, None),
    "name undecodable": ({"schedule": HERE}, UNDECODABLE),
    "id text": ({"_id": "mine"}, None),
    "id number": ({"_id": 5}, None),
    "id object": ({"_id": {"a": 1, "b": [2]}}, None),
    "id binary": ({"_id": Binary.from_uuid(UUID(int=7))}, None),
    "id date": ({"_id": PAST}, None),
    "id undecodable": ({"_id": HERE}, UNDECODABLE),
    "id object undecodable": ({"_id": {"a": HERE}}, UNDECODABLE),
    "id deep undecodable": ({"_id": {"a": [{"b": HERE}]}}, UNDECODABLE),
    "more": ({"$more": 1, "a.b": 2, "": 3, "deliverAt": "soon"}, None),
    "fired in part": ({"firedAt": PAST, "firedIds": [1]}, None),
    "outbox in a list": ({"partitionKey": ["default"]}, None),
}  # fmt: skip


def odd(name: str) -> RawBSONDocument:
    """Return a row as it differs; each tells in a field which one it is."""
    row = {
        "_id": ObjectId(),
        "partitionKey": "default",
        "occurredAt": PAST,
        "data": {"name": "Odd", "data": {}},
        "key": "p",
        "slot": 3,
        "dueAt": PAST,
        "which": name,
        **ODD[name][0],
    }
    encoded = bson.encode({field: value for field, value in row.items() if value is not GONE})
    return RawBSONDocument(encoded.replace(HERE.encode() + b"\0", b"\xff\xfe\xff\xfe\0"))


@contextlib.contextmanager
def moving(site: Site, count: int) -> Iterator[None]:
    """Run the movers of an outbox that is divided, without relays."""
    partitioning = run(site.database, to_write("default", count))
    checkpoints = site.database[wire.CHECKPOINTS]
    checkpoints.insert_many([{"partitionKey": name} for name in partitioning.names])
    movers = [
        Mover(site.database, partition=name, margin=timedelta(hours=1), tell=lambda _: None)
        for name in partitioning.names
    ]
    for mover in movers:
        mover.start()
    try:
        yield
    finally:
        for mover in movers:
            mover.stop()


@contextlib.contextmanager
def monitored(site: Site, finds: list[dict[str, Any]]) -> Iterator[Database[Any]]:
    """Lend a database of a client whose finds are noted."""

    class Noting(monitoring.CommandListener):
        def started(self, event: monitoring.CommandStartedEvent) -> None:
            if event.command_name == "find":
                finds.append(dict(event.command))

        def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...
        def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    uri = site.environment["POSTROOM_MONGODB_URI"]
    with MongoClient[Any](uri, event_listeners=[Noting()]) as client:
        yield client[site.database.name]


def explained(site: Site, find: dict[str, Any]) -> dict[str, Any]:
    """Return what a find reads."""
    left_out = {"lsid", "$db", "$clusterTime", "$readPreference", "readConcern", "maxTimeMS"}
    command = {name: value for name, value in find.items() if name not in left_out}
    answer = site.database.command("explain", command, verbosity="executionStats")
    found: dict[str, Any] = answer["executionStats"]
    return found


def neighbours(site: Site) -> int:
    """Return how many of the others are in the outbox."""
    return int(site.outbox.count_documents({"data.name": "Neighbour"}))


def left(site: Site) -> dict[str, str]:
    """Return why rows are left, by their names."""
    found = site.database[wire.SCHEDULED].find(
        {"refused": {"$ne": None}}, {"which": 1, "refused": 1, "_id": 0}
    )
    return {row["which"]: row["refused"] for row in found}


@pytest.mark.parametrize("count", [1, 4])
def test_none_of_them_holds_up_another(
    lite_site: Site, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What can go into the outbox goes there; the others stay, each with its reason, said once."""
    plan = lite_site.database[wire.SCHEDULED]
    outbox = Outbox(lite_site.database, partitions=count)
    events = [{"name": "Neighbour", "data": {"n": n}} for n in range(NEIGHBOURS)]
    outbox.publish(events[::2], deliver_at=PAST - timedelta(days=1))
    for name in ODD:
        plan.insert_one(odd(name))
    outbox.publish(events[1::2], deliver_at=PAST + timedelta(days=1))
    refused = {name: why for name, (_, why) in ODD.items() if why is not None}
    with caplog.at_level(logging.ERROR), moving(lite_site, count):
        wait_until(lambda: neighbours(lite_site) == NEIGHBOURS, description="the neighbours")
        wait_until(lambda: left(lite_site) == refused, description="all that are left")
        moved = ODD.keys() - refused.keys()
        fields = {"which": 1, "_id": 0}
        wait_until(
            lambda: (
                {row.get("which") for row in lite_site.outbox.find({}, fields)} - {None} == moved
            ),
            description="all others in the outbox",
        )
        outbox.publish({"name": "Neighbour", "data": {}}, deliver_at=PAST)
        wait_until(lambda: neighbours(lite_site) == NEIGHBOURS + 1, description="a later one")
    assert lite_site.outbox.count_documents({}) == NEIGHBOURS + 1 + len(moved)
    assert len([record for record in caplog.records if "is left in" in record.message]) == len(
        refused
    )
    assert plan.find_one({"which": "due text"})["givenDueAt"] == "2020-01-01T00:00:00Z"  # type: ignore[index]


def test_operators_find_and_change_them(lite_site: Site) -> None:
    """They are listed with their reasons, moved once they have a date, and cancelled."""
    plan, actor = lite_site.database[wire.SCHEDULED], Actor(who="ann", by="test")
    Outbox(lite_site.database).publish({"name": "Neighbour", "data": {}}, deliver_at=PAST)
    names = ("due text", "due list", "no slot", "key undecodable", "name list", "due before year 1")
    for name in names:
        plan.insert_one(odd(name))
    plan.insert_one({"_id": 0, "partitionKey": 7, "dueAt": PAST, "slot": 0})
    plan.insert_one({"_id": 1, "partitionKey": "default", "dueAt": DatetimeMS(400_000_000_000_000)})
    with moving(lite_site, 1):
        wait_until(lambda: len(left(lite_site)) == len(names) - 1, description="all that are left")
        # With one that is due in the year 14645.
        wait_until(
            lambda: scheduled.page(lite_site.database, outbox="default").matching == len(names),
            description="all others in the outbox",
        )
        (seen,) = ScheduledSearch(lite_site.database).overview()
        assert (seen.outbox, seen.refused, seen.overdue) == ("default", 5, 5)
        repaired = str((plan.find_one({"which": "due text"}, {"key": 0}) or {})["_id"])
        done = scheduled.reschedule(
            lite_site.database, Filter(ids=(repaired,)), actor=actor, at=PAST
        )
        assert done.done == 1
        wait_until(lambda: lite_site.outbox.find_one({"which": "due text"}), description="it")
    row = lite_site.outbox.find_one({"which": "due text"}) or {}
    assert list(row) == ["_id", "partitionKey", "occurredAt", "data", "key", "which"]
    done = scheduled.cancel(lite_site.database, Filter(), actor=actor, outbox="default")
    assert (done.done, done.left) == (5, 0)


def test_many_of_them_hold_up_no_other_for_long(
    lite_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """They are marked together, and what is said of them is bounded."""
    plan = lite_site.database[wire.SCHEDULED]
    outbox = Outbox(lite_site.database)
    outbox.publish({"name": "Neighbour", "data": {}}, deliver_at=PAST - timedelta(days=1))
    plan.insert_many([odd("slot text") for _ in range(3000)])
    outbox.publish({"name": "Neighbour", "data": {}}, deliver_at=PAST + timedelta(days=1))
    with caplog.at_level(logging.ERROR), moving(lite_site, 1):
        wait_until(lambda: neighbours(lite_site) == 2, description="the neighbours", seconds=10)
        wait_until(
            lambda: plan.count_documents({"refused": NO_SLOT}) == 3000, description="all of them"
        )
    assert 0 < len(caplog.records) <= 300


def test_what_is_due_is_found_by_the_index_though_lists_were_in_it(lite_site: Site) -> None:
    """Such an index gives no two bounds of a field any more, and for good."""
    plan = lite_site.database[wire.SCHEDULED]
    outbox = Outbox(lite_site.database)
    events = [{"name": "Neighbour", "data": {}}] * 3000
    outbox.publish(events, deliver_at=FUTURE)
    for name in ("slot list", "due dates", "outbox in a list"):
        plan.insert_one(odd(name))
        plan.delete_one({"which": name})
    looks: list[dict[str, Any]] = []
    with monitored(lite_site, looks) as database:
        rows = DueRows(database, partitioning=Partitioning(), partition=Partitioning().names[0])
        assert not rows.due(datetime.now(UTC), limit=1000).rows
        odd_rows = OddRows(database, "default")
        assert not list(odd_rows.without_a_place(datetime.now(UTC)))
        assert not list(odd_rows.without_a_date())
    assert len(looks) == 3
    for look in looks:
        stats = explained(lite_site, look)
        assert stats["totalKeysExamined"] <= 12, look
        assert stats["totalDocsExamined"] <= 2, look


def test_one_in_which_no_reason_can_be_written_holds_up_no_other(lite_site: Site) -> None:
    """As where a validator of the user's does not let the plan have it."""
    lite_site.database.create_collection(wire.SCHEDULED, validator={"refused": {"$exists": False}})
    lite_site.database[wire.SCHEDULED].insert_one(odd("no slot"))
    outbox = Outbox(lite_site.database)
    with moving(lite_site, 1):
        for count in range(1, 4):
            outbox.publish({"name": "Neighbour", "data": {}}, deliver_at=PAST)
            wait_until(lambda n=count: neighbours(lite_site) == n, description="each")  # type: ignore[misc]
    assert left(lite_site) == {}
    assert lite_site.database[wire.SCHEDULED].count_documents({"which": "no slot"}) == 1


def test_many_in_which_no_reason_can_be_written_hold_up_no_other(
    lite_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """More than are looked at together; what is said of them is said once."""
    lite_site.database.create_collection(wire.SCHEDULED, validator={"refused": {"$exists": False}})
    lite_site.database[wire.SCHEDULED].insert_many([odd("no slot") for _ in range(1500)])
    outbox = Outbox(lite_site.database)
    outbox.publish({"name": "Neighbour", "data": {}}, deliver_at=PAST + timedelta(days=1))
    with caplog.at_level(logging.ERROR), moving(lite_site, 1):
        wait_until(lambda: neighbours(lite_site) == 1, description="the other", seconds=20)
    assert len([record for record in caplog.records if " more " in record.message]) == 1


def test_what_the_relay_cannot_send_of_them_is_in_quarantine(lite_site: Site) -> None:
    """Each is sent or set aside by the relay, as any row that is put into the outbox by hand."""
    plan = lite_site.database[wire.SCHEDULED]
    Outbox(lite_site.database).publish({"name": "Neighbour", "data": {}}, deliver_at=PAST)
    names = ["no data", "data number", "data undecodable", "data huge", "key object", "id object"]
    for name in names:
        plan.insert_one(odd(name))
    Outbox(lite_site.database).publish({"name": "Neighbour", "data": {}}, deliver_at=PAST)
    with relaying(lite_site) as relay:
        wait_until(lambda: relay.status.position >= len(names) + 2, description="all of them")
    aside = lite_site.database[wire.QUARANTINE].count_documents({})
    assert len(lite_site.stored()) + aside == len(names) + 2
    assert aside >= 4


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.text("ab.$", max_size=3), st.integers(0, 9), max_size=2),
    st.datetimes(),
    st.integers(-(2**60), 2**60).map(DatetimeMS),
)
fields = st.sampled_from(
    ["_id", "slot", "dueAt", "data", "key", "headers", "schedule", "occurredAt", "firedIds", "x"]
)


@settings(
    max_examples=8,
    suppress_health_check=list(HealthCheck),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(changes=st.lists(st.dictionaries(fields, values, max_size=4), min_size=1, max_size=30))
def test_whatever_rows_there_are(lite_site: Site, changes: list[dict[str, Any]]) -> None:
    """The neighbours are moved, beside anything."""
    database = lite_site.mongodb[f"{lite_site.database.name}-{ObjectId()}"]
    plan = database[wire.SCHEDULED]
    Outbox(database).publish([{"name": "Neighbour", "data": {}}] * 2, deliver_at=PAST)
    for change in changes:
        base = {"_id": ObjectId(), "partitionKey": "default", "dueAt": PAST, "slot": 0, "data": 0}
        with contextlib.suppress(Exception):  # MongoDB does not take each of them
            plan.insert_one({**base, **change})
    Outbox(database).publish([{"name": "Neighbour", "data": {}}] * 2, deliver_at=PAST)
    database[wire.CHECKPOINTS].insert_one({"partitionKey": "default"})
    name = Partitioning().names[0]
    mover = Mover(database, partition=name, margin=timedelta(hours=1), tell=lambda _: None)
    mover.start()
    try:
        found = database[wire.OUTBOX]
        wait_until(
            lambda: found.count_documents({"data.name": "Neighbour"}) == 4,
            description="the neighbours",
        )
        overdue = {"dueAt": {"$lte": datetime.now(UTC)}, "refused": None}
        wait_until(lambda: not plan.count_documents(overdue), description="nothing overdue")
    finally:
        mover.stop()
        lite_site.mongodb.drop_database(database.name)
