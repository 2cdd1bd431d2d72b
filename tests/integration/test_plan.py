"""Scheduled events on the write side: in the caller's transaction, by name, cancelled and moved."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from bson import ObjectId
from pymongo import AsyncMongoClient

from postroom import (
    AlreadyScheduled,
    AsyncOutbox,
    DomainEvent,
    InvalidEvent,
    Outbox,
    OutboxError,
    PlanChange,
    ScopeClosed,
    wire,
)
from postroom.operations import scheduled
from postroom.operations.actions import Actor
from postroom.operations.filters import Filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.site import Site

HOUR = timedelta(hours=1)
AT = datetime(2040, 5, 1, 12, 0, 0, 123000, tzinfo=UTC)


class Reminded(DomainEvent):
    """A sample."""

    number: int = 0
    patient_id: str = "p"


@pytest.fixture
def outbox(lite_site: Site) -> Outbox:
    """Return the outbox of a site."""
    return Outbox(lite_site.database, key="patientId")


def names(site: Site) -> dict[str, str]:
    """Return which event has which name, of whatever outbox."""
    found = site.database[wire.SCHEDULE_NAMES].find()
    return {row["_id"]["schedule"]: str(row["eventId"]) for row in found}


def plan(site: Site) -> list[dict[str, Any]]:
    """Return what is scheduled."""
    return list(site.database[wire.SCHEDULED].find().sort("_id"))


def test_the_first_event_may_be_scheduled_behind_a_cancel_of_none(
    lite_site: Site, outbox: Outbox
) -> None:
    """The plan's indexes are made before the transaction touches it, and never wait for its end."""
    with outbox.scope() as tx:
        assert tx.cancel("reminder-42") is PlanChange.UNKNOWN
        tx.publish(Reminded(), deliver_at=AT, schedule="reminder-42")
    assert len(plan(lite_site)) == 1


def test_a_scheduled_event_stands_in_the_plan_and_not_in_the_outbox(
    lite_site: Site, outbox: Outbox
) -> None:
    """It is a row as always, with its due moment; the id that publish returns is its own."""
    (event_id,) = outbox.publish(
        Reminded(), deliver_at=AT, schedule="reminder-42", headers={"a": "b"}
    )
    (row,) = plan(lite_site)
    assert str(row["_id"]) == event_id
    assert (row["partitionKey"], row["key"], row["headers"]) == ("default", "p", {"a": "b"})
    assert (row["dueAt"], row["schedule"]) == (AT, "reminder-42")
    assert row["data"] == {"name": "Reminded", "data": {"number": 0, "patientId": "p"}}
    assert lite_site.outbox.count_documents({}) == 0


def test_data_and_plan_commit_together_or_neither(lite_site: Site, outbox: Outbox) -> None:
    """What the caller's transaction does not commit is not scheduled, cancelled or moved."""
    outbox.publish(Reminded(), deliver_at=AT, schedule="kept")
    with pytest.raises(KeyError), outbox.scope() as tx:
        tx.publish(Reminded(), deliver_in=HOUR, schedule="new")
        assert tx.cancel("kept")
        raise KeyError
    with pytest.raises(KeyError), outbox.scope() as tx:
        assert tx.reschedule("kept", deliver_in=HOUR)
        raise KeyError
    assert [(row["schedule"], row["dueAt"]) for row in plan(lite_site)] == [("kept", AT)]
    with pytest.raises(ScopeClosed):
        tx.cancel("kept")


def test_a_delay_counts_from_mongodbs_time(
    lite_site: Site, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer whose clock is wrong by days schedules as all others do."""

    class Wrong(datetime):
        """A clock that is two days ahead."""

        @classmethod
        def now(cls, tz: Any = None) -> Wrong:
            """Return it."""
            return super().now(tz) + timedelta(days=2)

    monkeypatch.setattr("postroom.store.plan.datetime", Wrong)
    outbox.publish([Reminded(number=1), Reminded(number=2)], deliver_in=HOUR)
    now = lite_site.mongodb.admin.command("hello")["localTime"].replace(tzinfo=UTC)
    for row in plan(lite_site):
        assert abs(row["dueAt"] - now - HOUR) < timedelta(seconds=30)


def test_a_name_that_waits_is_refused_or_replaced_as_asked(lite_site: Site, outbox: Outbox) -> None:
    """A refusal leaves the transaction usable; what replaces is another event, of an own id."""
    outbox.publish(Reminded(number=1), deliver_at=AT, schedule="name")
    with outbox.scope() as tx:
        with pytest.raises(AlreadyScheduled, match="'name'"):
            tx.publish(Reminded(number=2), deliver_at=AT, schedule="name")
        tx.publish(Reminded(number=3), deliver_at=AT, schedule="other")
    assert [row["data"]["data"]["number"] for row in plan(lite_site)] == [1, 3]
    (event_id,) = outbox.publish(Reminded(number=4), deliver_in=HOUR, schedule="name", replace=True)
    assert {row["schedule"]: str(row["_id"]) for row in plan(lite_site)}["name"] == event_id
    assert [row["data"]["data"]["number"] for row in plan(lite_site)] == [3, 4]


def test_names_are_those_of_one_outbox(lite_site: Site, outbox: Outbox) -> None:
    """Two applications that share a database do not meet by their names."""
    other = Outbox(lite_site.database, partition="billing")
    outbox.publish(Reminded(number=1), deliver_at=AT, schedule="name")
    other.publish(Reminded(number=2), deliver_at=AT, schedule="name")
    with other.scope() as tx:
        assert tx.cancel("name") is PlanChange.DONE
        assert tx.cancel("name") is PlanChange.UNKNOWN
    assert [row["partitionKey"] for row in plan(lite_site)] == ["default"]


def test_of_two_that_schedule_a_name_at_once_one_is_refused(
    lite_site: Site, outbox: Outbox
) -> None:
    """Whoever commits first has it, also where no relay has ever run here."""
    barrier, told = threading.Barrier(4), list[str]()

    def schedule(number: int) -> None:
        barrier.wait(10)
        try:
            outbox.publish(Reminded(number=number), deliver_at=AT, schedule="name")
            told.append("done")
        except AlreadyScheduled:
            told.append("refused")

    threads = [threading.Thread(target=schedule, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(told) == ["done", "refused", "refused", "refused"]
    assert len(plan(lite_site)) == 1


def test_an_event_without_a_name_is_found_by_its_id(lite_site: Site, outbox: Outbox) -> None:
    """Cancelled and moved as one that has a name."""
    first, second = outbox.publish([Reminded(), Reminded()], deliver_in=HOUR)
    with outbox.scope() as tx:
        assert tx.reschedule(event_id=first, deliver_at=AT)
        assert tx.cancel(event_id=second)
        assert tx.cancel(event_id=str(ObjectId())) is PlanChange.UNKNOWN
    assert [(str(row["_id"]), row["dueAt"]) for row in plan(lite_site)] == [(first, AT)]


def test_a_name_goes_with_its_event(lite_site: Site, outbox: Outbox) -> None:
    """Cancelled by id, by operators, or with a transaction that is undone: it is free then."""
    for number in range(4):
        outbox.publish(Reminded(number=number), deliver_at=AT, schedule=f"n{number}")
    ids = [str(row["_id"]) for row in plan(lite_site)]
    with outbox.scope() as tx:
        assert tx.cancel(event_id=ids[0])
    with pytest.raises(KeyError), outbox.scope() as tx:
        assert tx.cancel("n1")
        tx.publish(Reminded(), deliver_at=AT, schedule="undone")
        raise KeyError
    actor = Actor(who="ann", by="test")
    done = scheduled.cancel(lite_site.database, Filter(), actor=actor, schedule="n2")
    assert (done.done, done.left) == (1, 0)
    assert names(lite_site) == {"n1": ids[1], "n3": ids[3]}
    for name in ("n0", "n2", "undone"):
        outbox.publish(Reminded(), deliver_at=AT, schedule=name)
    done = scheduled.cancel(lite_site.database, Filter(), actor=actor, outbox="default")
    assert (done.done, names(lite_site), plan(lite_site)) == (5, {}, [])


def test_operators_cancel_behind_a_transaction_that_is_open(
    lite_site: Site, outbox: Outbox
) -> None:
    """It is tried again until that has ended, and finds what it has left."""
    outbox.publish([Reminded(number=n) for n in range(3)], deliver_at=AT)
    (event_id,) = outbox.publish(Reminded(number=3), deliver_at=AT, schedule="name")
    actor, told = Actor(who="ann", by="test"), list[int]()

    def cancel() -> None:
        told.append(scheduled.cancel(lite_site.database, Filter(), actor=actor).done)

    with outbox.scope() as tx:
        tx.publish(Reminded(), deliver_at=AT, schedule="name", replace=True)
        thread = threading.Thread(target=cancel)
        thread.start()
        thread.join(0.5)
        assert told == []
    thread.join(30)
    assert told == [3]
    assert [str(row["_id"]) != event_id for row in plan(lite_site)] == [True]
    assert list(names(lite_site)) == ["name"]


@pytest.mark.parametrize(
    "given",
    [
        {"deliver_at": AT, "deliver_in": HOUR},
        {"deliver_at": AT.replace(tzinfo=None)},
        {"deliver_at": "tomorrow"},
        {"deliver_at": AT.replace(year=9999)},
        {"deliver_at": datetime.max.replace(tzinfo=timezone(-HOUR))},
        {"deliver_at": datetime.min.replace(tzinfo=timezone(HOUR))},
        {"deliver_in": 5},
        {"deliver_in": timedelta.max},
        {"schedule": "without a time"},
        {"deliver_in": HOUR, "replace": True},
        {"deliver_in": HOUR, "schedule": ""},
        {"deliver_in": HOUR, "schedule": "a\0b"},
        {"deliver_in": HOUR, "schedule": "x" * 257},
        {"deliver_in": HOUR, "schedule": "\ud800"},
        {"deliver_in": HOUR, "schedule": 7},
    ],
)
def test_what_is_no_time_or_name_is_refused(
    lite_site: Site, outbox: Outbox, given: dict[str, Any]
) -> None:
    """With a sentence, before anything is written."""
    with pytest.raises(InvalidEvent, match="nothing was written"):
        outbox.publish(Reminded(), **given)
    assert plan(lite_site) == []


def test_what_is_due_within_a_millisecond_is_due_behind_it(lite_site: Site, outbox: Outbox) -> None:
    """MongoDB counts in milliseconds, and nothing is sent before it is due."""
    for micro in (0, 1, 999):
        outbox.publish(Reminded(number=micro), deliver_at=AT + timedelta(microseconds=micro))
    later = AT + timedelta(milliseconds=1)
    assert [row["dueAt"] for row in plan(lite_site)] == [AT, later, later]


def test_one_name_is_one_events(lite_site: Site, outbox: Outbox) -> None:
    """A list under one name is refused; without a name it is scheduled as a whole."""
    with pytest.raises(InvalidEvent, match="2 were given"):
        outbox.publish([Reminded(), Reminded()], deliver_at=AT, schedule="name")
    ids = outbox.publish([Reminded(number=n) for n in range(2500)], deliver_at=AT)
    assert [str(row["_id"]) for row in plan(lite_site)] == ids


@pytest.mark.parametrize(
    "which",
    [{}, {"schedule": "a", "event_id": str(ObjectId())}, {"event_id": "x"}, {"schedule": ""}],
)
def test_what_is_cancelled_is_named_in_one_way(outbox: Outbox, which: dict[str, str]) -> None:
    """By a name or an id, and one that can be one."""
    with pytest.raises(InvalidEvent), outbox.scope() as tx:
        tx.cancel(**which)


def test_an_outbox_for_asyncio_has_all_of_it(lite_site: Site) -> None:
    """Scheduled, refused, replaced, moved and cancelled from an event loop."""

    async def run() -> None:
        async with AsyncMongoClient[Any](lite_site.environment["POSTROOM_MONGODB_URI"]) as client:
            outbox = AsyncOutbox(client[lite_site.name])
            await outbox.publish(Reminded(number=1), deliver_at=AT, schedule="name")
            with pytest.raises(AlreadyScheduled):
                await outbox.publish(Reminded(), deliver_in=HOUR, schedule="name")
            await outbox.publish(Reminded(number=2), deliver_at=AT, schedule="name", replace=True)
            await outbox.publish(Reminded(number=3), deliver_in=HOUR, schedule="gone")
            await outbox.publish(Reminded(), deliver_in=HOUR, schedule="own")
            async with outbox.scope() as tx:
                assert await outbox.within(tx.session).cancel("own")
                assert await tx.reschedule("name", deliver_at=AT + HOUR)
                assert await tx.cancel("gone") is PlanChange.DONE
                assert await tx.cancel("gone") is PlanChange.UNKNOWN

    asyncio.run(run())
    assert [(r["data"]["data"]["number"], r["dueAt"]) for r in plan(lite_site)] == [(2, AT + HOUR)]


def test_what_is_changed_with_the_callers_session_is_in_its_transaction(
    lite_site: Site, outbox: Outbox
) -> None:
    """As in a handler; a session without a transaction is refused."""
    outbox.publish(Reminded(), deliver_in=HOUR, schedule="name")
    with lite_site.mongodb.start_session() as session:
        with pytest.raises(OutboxError, match="without a transaction"):
            outbox.within(session)
        session.start_transaction()
        tx = outbox.within(session)
        assert tx.reschedule("name", deliver_at=AT)
        assert tx.cancel("name") is PlanChange.DONE
        tx.publish(Reminded(), deliver_in=HOUR, schedule="name")
        session.abort_transaction()
        with pytest.raises(ScopeClosed):
            tx.cancel("name")
        (row,) = plan(lite_site)
        assert row["dueAt"] != AT
        with session.start_transaction():
            assert outbox.within(session).cancel("name") is PlanChange.DONE
    assert plan(lite_site) == []


def test_programs_cannot_be_told_in_two_ways(outbox: Outbox) -> None:
    """A change of the plan without a time is no change."""
    change: Callable[..., Any]
    with pytest.raises(InvalidEvent), outbox.scope() as tx:
        change = tx.reschedule
        change("name")
