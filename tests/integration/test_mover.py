"""Scheduled events through a relay: fired once when due, in order, or cancelled, and never both."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import bson
import pulsar
import pytest
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import errors as mongo

from postroom import DomainEvent, Outbox, PlanChange, Transaction, wire
from postroom.operations import scheduled
from postroom.relay.mover import LOOK_SECONDS
from postroom.store import plan_indexes
from postroom.store.due_rows import DueRows, take_over
from postroom.store.fired import Fired, with_id
from postroom.store.moment import at_one_time
from postroom.store.partitioning_record import run
from postroom.store.partitionings import neighbours
from postroom.store.values import DEFAULT_PARTITION
from postroom.wire import ScheduledField
from tests.relays import relaying
from tests.waiting import beside, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.store.due_rows import Clock
    from tests.site import Site

SECOND = timedelta(seconds=1)
PAST = datetime(2020, 1, 1, tzinfo=UTC)


class Unnumbered(DomainEvent, key="patient_id"):
    """A sample without a number."""

    patient_id: str = "p"


class Reminded(DomainEvent):
    """A sample."""

    number: int = 0
    patient_id: str = "p"


@pytest.fixture
def outbox(lite_site: Site) -> Outbox:
    """Return the outbox of a site."""
    return Outbox(lite_site.database, key="patientId")


def now(site: Site) -> datetime:
    """Return MongoDB's time."""
    found: datetime = site.mongodb.admin.command("hello")["localTime"]
    return found.replace(tzinfo=UTC)


def numbers(site: Site) -> list[int]:
    """Return what was moved into the outbox, in the order of the commits as far as ids tell."""
    return [row["data"]["data"]["number"] for row in site.outbox.find().sort("$natural")]


class Arrivals:
    """A plain subscriber, by ids: the embedded broker may hand it one message twice."""

    def __init__(self, site: Site) -> None:
        self._plain = site.subscribe()
        self._ids: set[str] = set()

    def wait(self, count: int) -> None:
        """Wait until so many events have come."""
        wait_until(lambda: self._receive() >= count, description=f"{count} events")

    def _receive(self) -> int:
        with contextlib.suppress(pulsar.Timeout):
            while True:
                message = self._plain.receive(100)
                self._plain.acknowledge(message)
                self._ids.add(message.properties()["id"])
        return len(self._ids)


@pytest.fixture
def arrivals(lite_site: Site) -> Arrivals:
    """Return what comes to a subscriber of a site's topic."""
    return Arrivals(lite_site)


def waiting(site: Site) -> list[dict[str, Any]]:
    """Return what is still scheduled."""
    return list(site.database[wire.SCHEDULED].find())


def moves(site: Site) -> list[dict[str, Any]]:
    """Return what is kept of what was fired."""
    return list(site.database[wire.FIRED].find())


def names(site: Site) -> dict[str, str]:
    """Return which event has which name."""
    found = site.database[wire.SCHEDULE_NAMES].find()
    return {row["_id"]["schedule"]: str(row["eventId"]) for row in found}


def due_rows(site: Site) -> DueRows:
    """Return the plan as the relay of the only outbox partition sees it."""
    found = run(site.database, neighbours("default"))
    assert found is not None
    return DueRows(site.database, partitioning=found[0], partition=found[0].names[0])


def clock_of(rows: DueRows) -> Clock:
    """Return the clock where something waits."""
    found = rows.clock()
    assert found is not None
    return found


def test_events_are_sent_when_they_are_due_and_not_before(lite_site: Site, outbox: Outbox) -> None:
    """Each under the id that publish returned, in the order of the due moments, with its fields."""
    plain = lite_site.subscribe()
    with relaying(lite_site, key="patientId"):
        begun = now(lite_site)
        (third,) = outbox.publish(Reminded(number=3), deliver_in=1.2 * SECOND)
        (second,) = outbox.publish(
            Reminded(number=2), deliver_at=begun + 0.8 * SECOND, headers={"a": "b"}
        )
        (first,) = outbox.publish(Reminded(number=1), deliver_at=PAST)
        got = lite_site.receive(plain, 3)
    assert [message.properties()["id"] for message in got] == [first, second, third]
    assert got[1].properties()["a"] == "b"
    assert got[1].partition_key() == "p"
    assert waiting(lite_site) == []
    fired = {str(each): move for move in moves(lite_site) for each in move["firedIds"]}
    assert fired[second]["firedAt"] >= begun + 0.8 * SECOND
    assert set(fired[second]) == {"_id", "partitionKey", "firedIds", "firedAt", "firedInto"}
    row = lite_site.outbox.find_one({"_id": ObjectId(second)}) or {}
    assert list(row) == ["_id", "partitionKey", "occurredAt", "data", "headers", "key"]


def test_an_earlier_one_wakes_the_relay(
    lite_site: Site, outbox: Outbox, arrivals: Arrivals
) -> None:
    """A relay that sleeps until tomorrow sees what is due before that."""
    outbox.publish(Reminded(number=1), deliver_in=timedelta(days=1), schedule="tomorrow")
    with relaying(lite_site):
        outbox.publish(Reminded(number=2), deliver_in=LOOK_SECONDS * SECOND)
        arrivals.wait(1)
        with outbox.scope() as tx:
            assert tx.reschedule("tomorrow", deliver_in=timedelta())
        arrivals.wait(2)
    assert numbers(lite_site) == [2, 1]


def test_a_cancel_that_comes_too_late_says_so(
    lite_site: Site, outbox: Outbox, arrivals: Arrivals
) -> None:
    """By name and by id, and so does a move; then the name is free again."""
    (event_id,) = outbox.publish(Reminded(), deliver_at=PAST, schedule="name")
    with relaying(lite_site):
        arrivals.wait(1)
        with outbox.scope() as tx:
            assert tx.cancel("name") is PlanChange.TOO_LATE
            assert tx.reschedule(event_id=event_id, deliver_in=SECOND) is PlanChange.TOO_LATE
        for count in (2, 3):
            outbox.publish(Reminded(), deliver_at=PAST, schedule="name")
            arrivals.wait(count)
    assert len(lite_site.stored()) == 3


def test_of_many_that_are_moved_together_each_is_known(lite_site: Site, outbox: Outbox) -> None:
    """One row stands for all of them: to cancel each is too late, and each is shown."""
    ids = outbox.publish([Reminded(number=n) for n in range(5)], deliver_at=PAST)
    ids += outbox.publish(Reminded(number=5), deliver_at=PAST, schedule="name")
    rows = due_rows(lite_site)
    clock = clock_of(rows)
    due = rows.due(clock.now, limit=10).rows
    assert rows.move(due, clock.now)
    assert not rows.move(due, clock.now)  # as one that was frozen would
    assert waiting(lite_site) == []
    assert len(moves(lite_site)) == 1
    for event_id in ids:
        with outbox.scope() as tx:
            assert tx.cancel(event_id=event_id) is PlanChange.TOO_LATE
            assert tx.reschedule(event_id=event_id, deliver_in=SECOND) is PlanChange.TOO_LATE
        shown = scheduled.one(lite_site.database, event_id)
        assert shown is not None
        assert (str(shown.row_id), shown.due_at) == (event_id, None)
        assert shown.schedule == ("name" if event_id == ids[5] else None)
        assert shown.fired_at is not None
    with outbox.scope() as tx:
        assert tx.cancel("name") is PlanChange.TOO_LATE
        assert tx.cancel(event_id=str(ObjectId())) is PlanChange.UNKNOWN
    other = Outbox(lite_site.database, partition="billing")
    with other.scope() as tx:
        assert tx.cancel(event_id=ids[3]) is PlanChange.UNKNOWN
    fired = Fired(lite_site.database, ["default"])
    known = at_one_time(lite_site.database, lambda moment: fired.since(PAST, moment))
    assert sorted(map(str, known)) == sorted(ids)
    before = ObjectId(ids[3])
    mine = {"firedIds": ["mine"], "firedInto": "default", "firedAt": now(lite_site)}
    broken = bson.encode({**mine, "_id": 1, "firedIds": [{"a": "HERE"}]})
    broken = broken.replace(b"HERE", b"\xff" * 4)
    lite_site.database[wire.FIRED].insert_many([mine, RawBSONDocument(broken)])
    known = at_one_time(lite_site.database, lambda at: fired.since(PAST, at, before=before))
    assert {*ids[:3], "mine"} <= set(map(str, known))
    assert len(known) == 5
    assert names(lite_site) == {"name": ids[5]}
    assert fired.forget(now(lite_site) + SECOND) == 3
    assert names(lite_site) == {}
    with outbox.scope() as tx:
        assert tx.cancel(event_id=ids[3]) is PlanChange.UNKNOWN
        assert tx.cancel("name") is PlanChange.UNKNOWN


def test_too_late_is_answered_by_an_index(lite_site: Site, outbox: Outbox) -> None:
    """Among all that was fired and all that waits."""
    plan_indexes.prepare_if_allowed(lite_site.database)  # as a relay does
    outbox.publish([Reminded(number=n) for n in range(2000)], deliver_at=PAST)
    rows = due_rows(lite_site)
    clock = clock_of(rows)
    while due := rows.due(clock.now, limit=50).rows:
        assert rows.move(due, clock.now)
    (event_id,) = outbox.publish(Reminded(), deliver_in=timedelta(days=1))
    outbox.publish([Reminded(number=n) for n in range(2000)], deliver_in=timedelta(days=1))
    found = lite_site.database[wire.FIRED].find(with_id("default", ObjectId(event_id)))
    stats = found.explain()["executionStats"]
    assert stats["totalDocsExamined"] <= 1
    assert stats["totalKeysExamined"] <= 2


def test_a_write_conflict_decides_between_cancel_and_fire(lite_site: Site, outbox: Outbox) -> None:
    """Of a cancel and a move that meet one fails, whichever comes first."""
    outbox.publish([Reminded(number=n) for n in range(2)], deliver_at=PAST)
    rows = due_rows(lite_site)
    clock = clock_of(rows)
    due = rows.due(clock.now, limit=10).rows
    with outbox.scope() as tx:
        assert tx.cancel(event_id=str(due[0].row_id))
        with pytest.raises(mongo.OperationFailure) as refused:
            rows.move(due, clock.now)
        assert refused.value.has_error_label("TransientTransactionError")
    assert not rows.move(due, clock.now)  # one of them is gone
    assert rows.move(rows.due(clock.now, limit=10).rows, clock.now)
    assert numbers(lite_site) == [1]
    assert not rows.move(due[1:], clock.now)  # as one that was frozen would


CHANGES: dict[str, Callable[[Transaction], Any]] = {
    "cancel": lambda tx: tx.cancel("name"),
    "reschedule": lambda tx: tx.reschedule("name", deliver_at=PAST + SECOND),
    "replace": lambda tx: tx.publish(Reminded(), deliver_at=PAST, schedule="name", replace=True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_by_name_conflicts_with_the_move_of_its_event(
    lite_site: Site, outbox: Outbox, change: str
) -> None:
    """Though a move looks at no name: whoever is first has it, and the other one is told."""
    outbox.publish(Reminded(number=1), deliver_at=PAST, schedule="name")
    rows = due_rows(lite_site)
    clock = clock_of(rows)
    due = rows.due(clock.now, limit=10).rows
    with pytest.raises(KeyError), outbox.scope() as tx:
        assert CHANGES[change](tx)
        with pytest.raises(mongo.OperationFailure) as refused:
            rows.move(due, clock.now)
        assert refused.value.has_error_label("TransientTransactionError")
        raise KeyError
    with outbox.scope() as tx:
        assert tx.cancel("other") is PlanChange.UNKNOWN  # its snapshot is from before the move
        assert rows.move(due, clock.now)
        with pytest.raises(mongo.OperationFailure) as refused:
            CHANGES[change](tx)
        assert refused.value.has_error_label("TransientTransactionError")
        tx.session.abort_transaction()
    assert numbers(lite_site) == [1]
    with outbox.scope() as tx:
        told = CHANGES[change](tx)
    assert told is PlanChange.TOO_LATE if change != "replace" else len(waiting(lite_site)) == 1


def test_a_name_is_the_next_events_once_its_own_was_fired(lite_site: Site, outbox: Outbox) -> None:
    """Cancelled by it is the one that waits; what is kept of the first takes no name with it."""
    (first,) = outbox.publish(Reminded(number=1), deliver_at=PAST, schedule="name")
    rows = due_rows(lite_site)
    clock = clock_of(rows)
    assert rows.move(rows.due(clock.now, limit=10).rows, clock.now)
    assert names(lite_site) == {"name": first}
    (second,) = outbox.publish(Reminded(number=2), deliver_in=60 * SECOND, schedule="name")
    assert names(lite_site) == {"name": second}
    assert Fired(lite_site.database, ["default"]).forget(now(lite_site) + SECOND) == 1
    assert names(lite_site) == {"name": second}
    with outbox.scope() as tx:
        assert tx.cancel("name") is PlanChange.DONE
        assert tx.cancel("name") is PlanChange.UNKNOWN
    assert names(lite_site) == {}
    assert waiting(lite_site) == []


def test_what_was_put_off_meanwhile_is_not_moved(lite_site: Site, outbox: Outbox) -> None:
    """A relay that wakes up with rows that it read long ago moves none of them early."""
    outbox.publish(Reminded(), deliver_at=PAST, schedule="name")
    rows = due_rows(lite_site)
    clock = clock_of(rows)
    due = rows.due(clock.now, limit=10).rows
    with outbox.scope() as tx:
        assert tx.reschedule("name", deliver_in=timedelta(hours=1))
    assert not rows.move(due, clock.now)
    assert numbers(lite_site) == []
    assert len(waiting(lite_site)) == 1


def test_one_that_is_held_up_holds_up_its_key_alone(
    lite_site: Site, outbox: Outbox, arrivals: Arrivals
) -> None:
    """A transaction that stays open over an event delays its key, in order, and no other."""
    outbox.publish(Reminded(number=1, patient_id="held"), deliver_at=PAST, schedule="held")
    outbox.publish(Reminded(number=2, patient_id="held"), deliver_at=PAST + SECOND)
    others = [Reminded(number=n, patient_id=str(n)) for n in range(3, 30)]
    with outbox.scope() as tx:
        tx.reschedule("held", deliver_at=PAST + SECOND / 2)
        outbox.publish(others, deliver_at=PAST + 2 * SECOND)
        with relaying(lite_site, key="patientId"):
            arrivals.wait(len(others))
            assert not {1, 2} & set(numbers(lite_site))
            tx.session.abort_transaction()
            arrivals.wait(len(others) + 2)
    assert [n for n in numbers(lite_site) if n < 3] == [1, 2]


def test_a_paused_outbox_partition_fires_nothing(
    lite_site: Site, outbox: Outbox, arrivals: Arrivals
) -> None:
    """What is due waits, and can be cancelled, until it is resumed."""
    where = {"partitionKey": "default"}
    with relaying(lite_site) as relay:
        checkpoints = lite_site.database[wire.CHECKPOINTS]
        checkpoints.update_one(where, {"$set": {"pausedAt": now(lite_site), "pausedBy": "me"}})
        wait_until(lambda: relay.status.state.value == "paused", description="the pause")
        outbox.publish(Reminded(number=1), deliver_at=PAST, schedule="a")
        outbox.publish(Reminded(number=2), deliver_at=PAST, schedule="b")
        threading.Event().wait(3 * LOOK_SECONDS)  # as long as a relay would need
        with outbox.scope() as tx:
            assert tx.cancel("a")
        checkpoints.update_one(where, {"$unset": {"pausedAt": 1, "pausedBy": 1}})
        arrivals.wait(1)
    assert numbers(lite_site) == [2]


def test_an_event_that_is_in_the_outbox_already_is_set_aside(
    lite_site: Site, outbox: Outbox, arrivals: Arrivals
) -> None:
    """It says so, harms no other, and is tried again when it is rescheduled."""
    (twice,) = outbox.publish(Reminded(number=1), deliver_at=PAST)
    outbox.publish([Reminded(number=n) for n in range(2, 6)], deliver_at=PAST + SECOND)
    lite_site.outbox.insert_one({"_id": ObjectId(twice), "partitionKey": "other"})
    with relaying(lite_site):
        arrivals.wait(4)
        (left,) = waiting(lite_site)
        assert left["refused"] == "An event with this id is in the outbox already"
        lite_site.outbox.delete_one({"_id": ObjectId(twice)})
        with outbox.scope() as tx:
            assert tx.reschedule(event_id=twice, deliver_at=PAST)
        arrivals.wait(5)
    assert waiting(lite_site) == []


def test_many_that_are_due_at_once_leave_room_for_others(lite_site: Site, outbox: Outbox) -> None:
    """They come in order, and what is published meanwhile does not wait for the last of them."""
    outbox.publish([Reminded(number=n) for n in range(3000)], deliver_at=PAST)
    with relaying(lite_site) as relay:
        outbox.publish(Reminded(number=-1))
        wait_until(lambda: not waiting(lite_site), description="an empty plan")
        wait_until(lambda: relay.status.position >= 3001, description="all of them")
        assert relay.status.counts.events_sent == 3001
    found = numbers(lite_site)
    assert [number for number in found if number >= 0] == list(range(3000))
    assert found[-1] != -1


def test_writers_that_cancel_and_move_all_the_time(lite_site: Site, outbox: Outbox) -> None:
    """Each event is sent once or was cancelled, never both, and none before it was due."""
    done: dict[str, str] = {}

    def write(stopping: threading.Event) -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            # Those without names are moved in another way than those with.
            name = f"{threading.get_ident()}-{number}" if number % 2 else None
            (event_id,) = outbox.publish(
                Reminded(number=number), deliver_in=0.02 * SECOND, schedule=name
            )
            which: Any = {"event_id": event_id} if name is None else {"schedule": name}
            verdict = PlanChange.UNKNOWN
            if number % 3 == 0:
                verdict = outbox.transact(lambda tx, of=which: tx.cancel(**of))  # type: ignore[misc]
            elif number % 3 == 1:
                outbox.transact(
                    lambda tx, of=which: tx.reschedule(**of, deliver_in=0.01 * SECOND)  # type: ignore[misc]
                )
            done[event_id] = "cancelled" if verdict else "fired"

    with relaying(lite_site), beside(write), beside(write):
        wait_until(lambda: len(done) > 300, description="events")
    with relaying(lite_site):
        wait_until(lambda: not waiting(lite_site), description="the rest")
        fired = {event_id for event_id, what in done.items() if what == "fired"}
        wait_until(
            lambda: set(lite_site.stored()) >= fired, description="all that were not cancelled"
        )
    assert sorted(lite_site.stored()) == sorted(fired)


def test_what_a_killed_relay_left_open_is_ended_by_the_next(
    lite_site: Site, outbox: Outbox, arrivals: Arrivals
) -> None:
    """MongoDB keeps such a transaction for a minute: its events are sent within a moment."""
    outbox.publish([Reminded(number=n, patient_id=str(n)) for n in range(300)], deliver_at=PAST)
    with relaying(lite_site):
        arrivals.wait(300)
    outbox.publish([Reminded(number=n, patient_id=str(n)) for n in range(300)], deliver_at=PAST)
    with lite_site.mongodb.start_session() as session:
        assert take_over(lite_site.database, DEFAULT_PARTITION, session)
        session.start_transaction()
        lite_site.database[wire.SCHEDULED].delete_many({}, session=session)
        began = time.monotonic()
        with relaying(lite_site):
            arrivals.wait(600)
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("count", [1, 3])
def test_rows_find_their_outbox_partition_when_they_are_due(lite_site: Site, count: int) -> None:
    """Whatever the outbox was divided into when they were scheduled, and each of exactly one."""
    from postroom.partitioning import Partitioning

    outbox = Outbox(lite_site.database, key="patientId")
    events = [Reminded(number=n, patient_id=str(n % 7)) for n in range(40)]
    outbox.publish(events, deliver_at=PAST)
    outbox.publish({"name": "Keyless", "data": {}}, deliver_at=PAST)
    partitioning = Partitioning(count=count, generation=2)
    for name in partitioning.names:
        rows = DueRows(lite_site.database, partitioning=partitioning, partition=name)
        while (clock := rows.clock()) is not None:
            assert rows.move(rows.due(clock.now, limit=5).rows, clock.now)
    placed: dict[str, int] = {}
    for row in lite_site.outbox.find():
        if key := row.get("key"):
            index = partitioning.names.index(row["partitionKey"])
            assert index == partitioning.of_key(key)
            assert placed.setdefault(key, index) == index
    assert lite_site.outbox.count_documents({}) == 41
    assert waiting(lite_site) == []


def test_looking_for_what_is_due_reads_an_entry_of_an_index(
    lite_site: Site, outbox: Outbox
) -> None:
    """Among thousands that wait, and thousands that were fired."""
    outbox.publish([Reminded(number=n) for n in range(5000)], deliver_in=timedelta(days=1))
    rows = due_rows(lite_site)
    clock = clock_of(rows)
    plan = lite_site.database[wire.SCHEDULED]
    mine = {"partitionKey": "default", "refused": None}
    order = [("dueAt", 1), ("_id", 1)]
    since = datetime.min.replace(tzinfo=UTC)
    found = plan.find({**mine, ScheduledField.DUE_AT: {"$gte": since, "$lte": clock.now}})
    explained = found.sort(order).limit(500).explain()["executionStats"]
    assert explained["totalDocsExamined"] == 0
    assert explained["totalKeysExamined"] <= 1
    found = plan.find({**mine, ScheduledField.DUE_AT: {"$gte": since}})
    assert found.sort(order).limit(1).explain()["executionStats"]["totalDocsExamined"] == 1


def test_an_outbox_without_scheduled_events_is_left_as_it_was(lite_site: Site) -> None:
    """No collection, no index, nothing in the checkpoint, and a look reads nothing."""
    with relaying(lite_site):
        lite_site.insert(3)
        threading.Event().wait(3 * LOOK_SECONDS)  # as long as looks take
        there = set(lite_site.database.list_collection_names())
        assert not there & {wire.SCHEDULED, wire.SCHEDULE_NAMES, wire.FIRED}
        assert "mover" not in lite_site.checkpoint


def test_a_row_that_a_validator_refuses_is_left_alone(
    lite_site: Site, outbox: Outbox, arrivals: Arrivals
) -> None:
    """It says so, the others are sent, and it is tried again when it is rescheduled."""
    validator = {"data.data.number": {"$gte": 0}}
    lite_site.database.create_collection(wire.OUTBOX, validator=validator)
    (refused,) = outbox.publish(Reminded(number=-2), deliver_at=PAST)
    outbox.publish([Reminded(number=n) for n in range(5)], deliver_at=PAST + SECOND)
    with relaying(lite_site):
        arrivals.wait(5)
        (left,) = waiting(lite_site)
        assert (str(left["_id"]), left["refused"]) == (
            refused,
            "MongoDB refused to insert it into the outbox (code 121)",
        )
        lite_site.database.command("collMod", wire.OUTBOX, validator={})
        with outbox.scope() as tx:
            assert tx.reschedule(event_id=refused, deliver_at=PAST)
        arrivals.wait(6)


def test_a_row_that_an_index_of_the_users_refuses_is_left_alone(
    lite_site: Site, outbox: Outbox, arrivals: Arrivals
) -> None:
    """Whatever MongoDB says of one row, it holds up none of the others."""
    lite_site.database[wire.OUTBOX].create_index([("data.data.number", "2dsphere")], sparse=True)
    (refused,) = outbox.publish(Reminded(number=-2), deliver_at=PAST)
    outbox.publish([Unnumbered()] * 5, deliver_at=PAST + SECOND)
    with relaying(lite_site):
        arrivals.wait(5)
        (left,) = waiting(lite_site)
        assert str(left["_id"]) == refused
        assert "MongoDB refused" in left["refused"]


@pytest.mark.pulsar
def test_what_was_fired_is_found_after_lost_history(pulsar_site: Site) -> None:
    """Though its id, or its time where the id is no ObjectId, is older than all of the scan's."""
    outbox, arrivals = Outbox(pulsar_site.database), Arrivals(pulsar_site)
    old = ObjectId.from_datetime(datetime.now(UTC) - timedelta(days=30))
    with relaying(pulsar_site):
        pulsar_site.insert(3)
        arrivals.wait(3)
        wait_until(lambda: pulsar_site.checkpoint["position"] == 3, description="the checkpoint")
    outbox.publish([Reminded(number=n) for n in range(3)], deliver_at=PAST)
    plan = pulsar_site.database[wire.SCHEDULED]
    ids = [ObjectId(f"{old}"[:-1] + "0"), ObjectId(f"{old}"[:-1] + "1"), "mine"]
    for row_id, row in zip(ids, list(plan.find()), strict=True):
        plan.delete_one({"_id": row["_id"]})
        plan.insert_one({**row, "_id": row_id, "occurredAt": PAST})
    rows = due_rows(pulsar_site)
    clock = clock_of(rows)
    assert rows.move(rows.due(clock.now, limit=10).rows, clock.now)
    broken = {"resumeToken": {"_data": "82" + "0" * 60}}
    pulsar_site.database[wire.CHECKPOINTS].update_one({}, {"$set": broken})
    with relaying(pulsar_site, wait=False):
        arrivals.wait(6)
        wait_until(
            lambda: "scan" not in pulsar_site.checkpoint,
            description="the end of its scan, which begins before anything is sent",
        )
    assert sorted(pulsar_site.stored()) == sorted(
        str(row["_id"]) for row in pulsar_site.outbox.find()
    )
