"""The recorder: databases in memory under the real Outbox, and what was published there."""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import InsertOne, MongoClient
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure

from postroom import AsyncOutbox, DomainEvent, Event, InvalidEvent, Outbox, handles
from postroom.errors import (
    AlreadyScheduled,
    ConfigurationError,
    TransactionEnded,
    TransactionTouched,
)
from postroom.store.plan import PlanChange
from postroom.testing import (
    NotFaked,
    OutboxRecorder,
    assert_nothing_published,
    assert_published,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.inbox.handling.handlers import Registry


class KitOrderPaid(DomainEvent, key="order_id"):
    """Of these tests."""

    order_id: str
    cents: int = 0
    paid_at: datetime | None = None


@pytest.fixture
def outbox(outbox_recorder: OutboxRecorder) -> Outbox:
    """Return the real outbox of a database in memory."""
    return Outbox(outbox_recorder.database)


def test_what_is_committed_is_published(outbox_recorder: OutboxRecorder, outbox: Outbox) -> None:
    """With its fields as in Python, its key, its headers and its transaction."""
    with outbox.scope() as tx:
        outbox_recorder.database.orders.insert_one({"_id": "7"}, session=tx.session)
        tx.publish(KitOrderPaid(order_id="7", cents=5), headers={"request-id": "r"})
        assert_nothing_published()
    outbox.publish([KitOrderPaid(order_id="8"), KitOrderPaid(order_id="9")])
    found = assert_published(KitOrderPaid, order_id="7", cents=5)
    assert (found.key, found.headers["request-id"]) == ("7", "r")
    assert assert_published("KitOrderPaid", orderId="8").transaction != found.transaction
    assert_published(KitOrderPaid, times=3)
    assert outbox_recorder.database.orders.find_one("7") == {"_id": "7"}
    with pytest.raises(AssertionError, match=r"order_id='10'.* was not published. Published: Kit"):
        assert_published(KitOrderPaid, order_id="10")
    with pytest.raises(AssertionError, match="was published 3 times, not 2"):
        assert_published(KitOrderPaid, times=2)
    with pytest.raises(TypeError, match="has no field ordr"):
        assert_published(KitOrderPaid, ordr="7")


def test_what_is_rolled_back_is_not(outbox_recorder: OutboxRecorder, outbox: Outbox) -> None:
    """Neither the event nor what was written beside it."""
    with pytest.raises(ZeroDivisionError), outbox.scope() as tx:
        outbox_recorder.database.orders.insert_one({"_id": "7"}, session=tx.session)
        tx.publish(KitOrderPaid(order_id="7"))
        1 / 0  # noqa: B018
    assert_nothing_published()
    assert outbox_recorder.database.orders.count_documents({}) == 0
    assert [each.data["orderId"] for each in outbox_recorder.rolled_back] == ["7"]
    with pytest.raises(AssertionError, match="Rolled back: KitOrderPaid"):
        assert_published(KitOrderPaid)


def test_outbox_refuses_what_it_refuses_anywhere(outbox: Outbox) -> None:
    """It is the real one: an event that could never be sent is not recorded."""
    with pytest.raises(InvalidEvent):
        outbox.publish({"name": "", "data": {}})
    with pytest.raises(InvalidEvent):
        outbox.publish({"name": "Large", "data": {"text": "x" * 6_000_000}})
    assert_nothing_published()


def test_conflicts_are_met_and_tried_again(outbox_recorder: OutboxRecorder, outbox: Outbox) -> None:
    """Two transactions that write one document: the later meets a conflict, transact() goes on."""
    orders = outbox_recorder.database.orders
    orders.insert_one({"_id": "7", "n": 0})
    with outbox.scope() as tx:
        orders.update_one({"_id": "7"}, {"$inc": {"n": 1}}, session=tx.session)
        with pytest.raises(OperationFailure, match="Write conflict"), outbox.scope() as other:
            orders.update_one({"_id": "7"}, {"$inc": {"n": 1}}, session=other.session)
        with pytest.raises(NotFaked, match=r"is session=… forgotten\?"):
            orders.update_one({"_id": "7"}, {"$inc": {"n": 1}})
    calls = []

    def add(tx: Any) -> None:
        calls.append(tx)
        if len(calls) == 1:
            orders.find_one({"_id": "7"}, session=tx.session)
            orders.update_one({"_id": "7"}, {"$inc": {"n": 10}})
        orders.update_one({"_id": "7"}, {"$inc": {"n": 1}}, session=tx.session)
        tx.publish(KitOrderPaid(order_id="7"))

    outbox.transact(add)
    assert orders.find_one("7") == {"_id": "7", "n": 12}
    assert_published(KitOrderPaid, times=1)


def test_asyncio_has_the_same(outbox_recorder: OutboxRecorder) -> None:
    """AsyncOutbox, its scope and a cancellation; both kinds of clients see one storage."""

    async def main() -> None:
        database = outbox_recorder.async_database
        outbox = AsyncOutbox(database)
        async with outbox.scope() as tx:
            await database.orders.insert_one({"_id": "7"}, session=tx.session)
            await tx.publish(KitOrderPaid(order_id="7"))
        begun = asyncio.Event()

        async def hang() -> None:
            async with outbox.scope() as tx:
                await tx.publish(KitOrderPaid(order_id="8"))
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hang())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await database.orders.find({}).sort("_id").to_list() == [{"_id": "7"}]
        assert [each async for each in database.orders.find()] == [{"_id": "7"}]

    asyncio.run(main())
    assert_published(KitOrderPaid, times=1)
    assert outbox_recorder.database.orders.count_documents({}) == 1


def test_a_handler_runs_in_a_transaction(
    outbox_recorder: OutboxRecorder, outbox: Outbox, own: Registry
) -> None:
    """Its effect is applied once for an event, and undone where it raises."""
    after: list[str] = []

    @handles(
        KitOrderPaid,
        name="kit.invoice",
        after_commit=lambda event: after.append(event.data.order_id),
    )
    def invoice(event: Event[KitOrderPaid], session: Any) -> None:
        invoices = session.client["test"]["invoices"]
        invoices.insert_one({"order": event.data.order_id}, session=session)
        if event.data.cents < 0:
            raise ValueError
        if event.data.cents == 1:
            session.commit_transaction()
        outbox.publish({"name": "Invoiced", "data": {"by": event.headers.get("who")}}, session)

    event = Event(id="1", name="KitOrderPaid", data=KitOrderPaid(order_id="a"), topic="t")
    assert outbox_recorder.handle(invoice, event).handled == 1
    assert outbox_recorder.handle("kit.invoice", event).repeated == 1
    assert after == ["a"]
    outbox_recorder.handle(invoice, KitOrderPaid(order_id="b"), headers={"who": "me"})
    assert_published("Invoiced", by="me")
    with pytest.raises(ValueError):  # noqa: PT011
        outbox_recorder.handle(invoice, KitOrderPaid(order_id="c", cents=-1))
    with pytest.raises(TransactionTouched):
        outbox_recorder.handle(invoice, KitOrderPaid(order_id="d", cents=1))
    found = outbox_recorder.database.invoices.find(sort=[("order", 1)])
    assert [each["order"] for each in found] == ["a", "b"]
    with pytest.raises(ConfigurationError, match="is no registered handler"):
        outbox_recorder.handle(test_asyncio_has_the_same, event)


def test_an_error_that_is_caught_has_ended_the_transaction(
    outbox_recorder: OutboxRecorder, outbox: Outbox, own: Registry
) -> None:
    """As MongoDB ends it: in a handler with the sentence of a consumer, and in a scope."""
    rows = outbox_recorder.database.rows
    rows.insert_one({"_id": 1})

    def swallow(session: Any) -> None:
        rows.insert_one({"_id": 2}, session=session)
        with contextlib.suppress(DuplicateKeyError):
            rows.insert_one({"_id": 1}, session=session)

    @handles(KitOrderPaid, name="kit.swallows")
    def swallows(_event: Event[KitOrderPaid], session: Any) -> None:
        swallow(session)

    with pytest.raises(TransactionEnded, match=r"kit\.swallows has caught an error .*11000"):
        outbox_recorder.handle(swallows, KitOrderPaid(order_id="a"))
    with pytest.raises(OperationFailure, match="has been aborted"), outbox.scope() as tx:
        swallow(tx.session)
        tx.publish(KitOrderPaid(order_id="b"))
    with pytest.raises(OperationFailure, match="has been aborted"), outbox.scope() as tx:
        swallow(tx.session)
    assert rows.count_documents({}) == 1
    assert_nothing_published()


def test_what_is_published_is_delivered(
    outbox_recorder: OutboxRecorder, outbox: Outbox, own: Registry
) -> None:
    """To each handler that wants it, in commit order, what they publish as well, once."""
    seen: list[str] = []

    @handles(KitOrderPaid, name="kit.first")
    def first(event: Event[KitOrderPaid], session: Any) -> None:
        seen.append(event.data.order_id)
        outbox.publish({"name": "KitSeen", "data": {"id": event.data.order_id}}, session)

    @handles("KitS*", name="kit.second", subscription="other")
    def second(event: Event[dict[str, Any]]) -> None:
        seen.append(event.name)

    outbox.publish([KitOrderPaid(order_id="a"), KitOrderPaid(order_id="b")])
    done = outbox_recorder.deliver()
    assert seen == ["a", "b", "KitSeen", "KitSeen"]
    assert [each.handler for each in done] == ["kit.first"] * 2 + ["kit.second"] * 2
    assert outbox_recorder.deliver() == []


def test_what_is_in_memory_is_as_bson_has_it(outbox_recorder: OutboxRecorder) -> None:
    """Dates are in milliseconds and without a zone, and nobody changes what is stored."""
    things = outbox_recorder.database.things
    document: dict[str, Any] = {
        "at": datetime(2026, 1, 2, microsecond=123_456, tzinfo=UTC),
        "l": [1],
    }
    row_id = things.insert_one(document).inserted_id
    assert document["_id"] == row_id
    document["l"].append(2)
    (found,) = things.find({"_id": row_id})
    assert found["at"] == datetime(2026, 1, 2, microsecond=123_000)  # noqa: DTZ001
    assert found["l"] == [1]
    with pytest.raises(DuplicateKeyError):
        things.insert_one({"_id": row_id})
    with pytest.raises(BulkWriteError):
        things.insert_many([{"_id": 1}, {"_id": 1}])


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({"n": 2}, [2]),
        ({"n": {"$gt": 1, "$lte": 3}}, [2, 3]),
        ({"n": {"$in": [1, 3]}}, [1, 3]),
        ({"n": {"$nin": [1, 3]}}, [2]),
        ({"n": {"$ne": 2}}, [1, 3]),
        ({"tags": "b"}, [2]),
        ({"inner.deep": None}, [2, 3]),
        ({"inner.deep": 1}, [1]),
        ({"inner": {"$exists": False}}, [2, 3]),
        ({"$or": [{"n": 1}, {"n": 3}]}, [1, 3]),
        ({"$nor": [{"n": 1}]}, [2, 3]),
        ({"n": {"$not": {"$gt": 1}}}, [1]),
        ({"n": True}, []),
    ],
)
def test_filters(outbox_recorder: OutboxRecorder, query: dict[str, Any], ids: list[int]) -> None:
    """What fits is what fits in MongoDB; the integration test asks it the same."""
    things = outbox_recorder.database.things
    things.insert_many(
        [{"_id": 1, "n": 1, "inner": {"deep": 1}}, {"_id": 2, "n": 2, "tags": ["a", "b"]}]
    )
    things.insert_one({"_id": 3, "n": 3})
    assert [each["_id"] for each in things.find(query)] == ids


def test_updates(outbox_recorder: OutboxRecorder) -> None:
    """The usual operators, an upsert and a replacement."""
    things = outbox_recorder.database.things
    done = things.update_one(
        {"_id": 1, "k": "x"},
        {"$set": {"a.b": 1}, "$inc": {"n": 2}, "$push": {"l": 1}, "$setOnInsert": {"new": True}},
        upsert=True,
    )
    assert (done.matched_count, done.upserted_id) == (0, 1)
    update: dict[str, Any] = {"$addToSet": {"l": 1}, "$unset": {"new": ""}, "$max": {"n": 9}}
    assert things.update_many({}, update).modified_count == 1
    assert things.find_one() == {"_id": 1, "k": "x", "a": {"b": 1}, "n": 9, "l": [1]}
    assert things.update_one({}, {"$set": {"n": 9}}).modified_count == 0
    before = things.find_one_and_update({"_id": 1}, {"$inc": {"n": 1}})
    after = things.find_one_and_update({"_id": 1}, {"$inc": {"n": 1}}, return_document=True)
    assert before is not None
    assert after is not None
    assert (before["n"], after["n"]) == (9, 11)
    things.replace_one({"_id": 1}, {"z": 1})
    assert things.find_one({}, {"_id": 0}) == {"z": 1}
    assert things.delete_many({"z": 1}).deleted_count == 1


def test_what_cannot_be_faked_is_refused(outbox_recorder: OutboxRecorder, outbox: Outbox) -> None:
    """By a sentence that says what to do instead, wherever it is asked for."""
    database = outbox_recorder.database
    database.things.insert_one({"_id": 1, "l": [{"a": 1}]})
    refused: list[Callable[[], Any]] = [
        lambda: database.things.aggregate([]),
        lambda: database.things.bulk_write([InsertOne({})], ordered=False),
        lambda: database.things.watch([]),
        lambda: database.things.create_index("a", unique=True),
        lambda: database.things.find_one({"$where": "1"}),
        lambda: database.things.find_one({"a": {"$regex": "x"}}),
        lambda: database.things.find_one({"l.a": 1}),
        lambda: database.things.update_one({}, {"$rename": {"a": "b"}}),
        lambda: database.things.update_one({}, [{"$set": {"a": 1}}]),
        lambda: database.command("collStats", "things"),
        lambda: database.things.find().batch_size(1).where("1"),
    ]
    for call in refused:
        with pytest.raises(NotFaked, match="use the fixture outbox_site"):
            call()
    with MongoClient[Any](connect=False) as real, outbox.scope() as tx:
        with pytest.raises(NotFaked, match="of another client cannot write with it"):
            real["a"]["b"].insert_one({}, session=tx.session)
        session: Any = real.start_session()
        with session, pytest.raises(NotFaked, match="of a real client"):
            database.things.insert_one({}, session=session)


@pytest.mark.parametrize(
    "call",
    [
        lambda rows: rows.find({"a": {"$regex": "x"}}),
        lambda rows: rows.find({"a": re.compile("x")}),
        lambda rows: rows.find({"a": {"$in": ["y", re.compile("x")]}}),
        lambda rows: rows.find({"$or": [{"b": 1}, {"$nor": [{"a": {"$not": {"$size": 1}}}]}]}),
        lambda rows: rows.find({"$where": "1"}),
        lambda rows: rows.find({}, collation={"locale": "en", "strength": 2}),
        lambda rows: rows.count_documents({}, limit=1),
        lambda rows: rows.find_one_and_delete({}, sort=[("a", 1)]),
        lambda rows: rows.delete_many({}, collation={"locale": "en"}),
        lambda rows: rows.insert_many([{"_id": 1}, {"_id": 1}, {"_id": 2}], ordered=False),
        lambda rows: rows.update_many({}, {"$set": {"a.$[x]": 1}}, array_filters=[{"x": 1}]),
    ],
)
def test_what_is_refused_does_not_depend_on_what_is_stored(
    outbox_recorder: OutboxRecorder, call: Callable[[Any], Any]
) -> None:
    """Neither in an empty collection nor in one whose documents have no such field."""
    for rows in (outbox_recorder.database.empty, outbox_recorder.database.rows):
        with pytest.raises(NotFaked):
            call(rows)
        outbox_recorder.database.rows.insert_one({"b": 2})


def test_what_a_client_or_database_has_is_no_name(outbox_recorder: OutboxRecorder) -> None:
    """Of a database or a collection that would be made, and called then."""
    for name in ("server_info", "list_database_names", "bulk_write"):
        with pytest.raises(NotFaked, match=f"{name} of a client"):
            getattr(outbox_recorder.client, name)
    for database in (outbox_recorder.database, outbox_recorder.async_database):
        with pytest.raises(NotFaked, match="create_collection of a database"):
            database.create_collection  # noqa: B018
        assert database.orders.name == "orders"


def test_what_is_looked_for_is_an_event(outbox_recorder: OutboxRecorder) -> None:
    """Also where nothing was published, and all would pass."""
    with pytest.raises(TypeError, match="int is no event class"):
        assert_nothing_published(int)
    with pytest.raises(TypeError, match="A KitOrderPaid is no event class"):
        assert_published(KitOrderPaid(order_id="7"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="KitOrderPaid has no field ordr"):
        assert_nothing_published(KitOrderPaid, ordr="7")
    with pytest.raises(OverflowError):
        outbox_recorder.advance(timedelta.max)
    assert outbox_recorder.advance(timedelta(hours=1)) == 0


def test_without_the_fixture_the_assertions_say_so() -> None:
    """Nothing is taken for published where nobody has looked."""
    with pytest.raises(ConfigurationError, match="outbox_recorder"):
        assert_published(KitOrderPaid)


def test_the_clock_of_scheduled_events_can_be_moved(
    outbox_recorder: OutboxRecorder, outbox: Outbox
) -> None:
    """They are published when they are due, under the id that they had; cancelled, never."""
    with outbox.scope() as tx:
        for name, days in (("late", 2), ("early", 1), ("never", 1), ("later", 1)):
            event = KitOrderPaid(order_id=name)
            tx.publish(event, deliver_in=timedelta(days=days), schedule=name)
    with outbox.scope() as tx:
        assert tx.cancel("never")
        assert tx.reschedule("later", deliver_in=timedelta(days=9))
        assert not tx.cancel("nobody")
        with pytest.raises(AlreadyScheduled):
            tx.publish(KitOrderPaid(order_id="x"), deliver_in=timedelta(1), schedule="late")
    with pytest.raises(ZeroDivisionError), outbox.scope() as tx:
        tx.publish(KitOrderPaid(order_id="x"), deliver_in=timedelta(0))
        1 / 0  # noqa: B018
    assert [each.schedule for each in outbox_recorder.scheduled] == ["early", "late", "later"]
    assert outbox_recorder.advance() == 0
    assert_nothing_published()
    assert outbox_recorder.advance(timedelta(days=1)) == 1
    assert_published(KitOrderPaid, order_id="early", times=1)
    assert outbox_recorder.advance(timedelta(days=2)) == 1
    assert [each.data["orderId"] for each in outbox_recorder.events] == ["early", "late"]
    with outbox.scope() as tx:
        assert tx.cancel("early") is PlanChange.TOO_LATE


def test_asyncio_schedules_as_well(outbox_recorder: OutboxRecorder) -> None:
    """By the same rules."""

    async def main() -> None:
        outbox = AsyncOutbox(outbox_recorder.async_database)
        await outbox.publish(KitOrderPaid(order_id="a"), deliver_in=timedelta(hours=1))

    asyncio.run(main())
    outbox_recorder.advance(timedelta(hours=2))
    assert_published(KitOrderPaid, order_id="a")
