"""The kit's corner of the real services: relayed, consumed and told, without a sleep."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import InsertOne, MongoClient

from postroom import AsyncOutbox, DomainEvent, Event, Outbox, Reject, Settings, handles
from postroom.errors import ConfigurationError
from postroom.testing import NotDrained, OutboxSite, Wired

# Handlers are registered by nearly every test.
pytestmark = pytest.mark.usefixtures("own")


class SiteOrderPaid(DomainEvent, key="order_id"):
    """Of these tests."""

    order_id: str


@pytest.fixture(scope="session")
def outbox_routing() -> Wired:
    """Have some events go to a topic that another subscription reads as well."""
    billing = "shop/prod/billing"
    consume = {"test": ["public/default/events"], "billing": [billing]}
    return Wired(topics={"Billed*": billing, "*": "public/default/events"}, consume=consume)


def test_what_waits_is_relayed_and_handled(outbox_site: OutboxSite) -> None:
    """Once, with what handlers publish, each to the subscription that reads its topic."""

    @handles(SiteOrderPaid, name="site.invoice", subscription="test")
    def invoice(event: Event[SiteOrderPaid], session: Any) -> None:
        database = session.client[Settings().mongodb_database]
        database.invoices.insert_one({"order": event.data.order_id}, session=session)
        Outbox(database).publish({"name": "BilledOrder", "data": {"id": event.id}}, session)

    @handles("Billed*", name="site.bill", subscription="billing", batch=10)
    def bill(events: list[Event[Any]], session: Any) -> None:
        assert [each.topic for each in events] == ["persistent://shop/prod/billing"] * len(events)

    outbox_site.outbox.publish([SiteOrderPaid(order_id="a"), SiteOrderPaid(order_id="b")])
    outbox_site.outbox.publish({"name": "Other", "data": {}})
    assert outbox_site.waiting() == 3
    done = outbox_site.drain()
    done.assert_no_dead_letters()
    assert [each.data["orderId"] for each in done.handled_by(invoice)] == ["a", "b"]
    assert len(done.handled_by("site.bill")) == 2
    assert [each.name for each in done.ignored] == ["Other"]
    assert done.assert_published(SiteOrderPaid, order_id="a").key == "a"
    assert outbox_site.database.invoices.count_documents({}) == 2
    assert str(outbox_site.drain()) == "Nothing waited."


def test_what_fails_is_tried_again_and_given_up(outbox_site: OutboxSite) -> None:
    """Without waiting for a backoff; what is given up and what can never be sent is told."""
    tries: list[str] = []

    @handles(SiteOrderPaid, name="site.fails", max_attempts=3, subscription="test")
    def fails(event: Event[SiteOrderPaid]) -> None:
        tries.append(event.data.order_id)
        if event.data.order_id == "never":
            raise Reject("never")
        if event.data.order_id == "bad" or tries.count("slow") == 1:
            raise ValueError

    ids = outbox_site.outbox.publish([SiteOrderPaid(order_id=n) for n in ("bad", "slow", "never")])
    outbox_site.database["__outboxMessages"].insert_one({"_id": "odd", "data": {"name": 1}})
    done = outbox_site.drain()
    assert tries == ["bad"] * 3 + ["slow"] * 2 + ["never"]
    assert [(each.event.id, each.attempts) for each in done.dead_letters] == [
        (ids[0], 3),
        (ids[2], 1),
    ]
    assert [(each.event.id, each.attempts) for each in done.handled] == [(ids[1], 2)]
    assert [each.row_id for each in done.quarantined] == ["odd"]
    with pytest.raises(AssertionError, match=r"Dead letter of site\.fails"):
        done.assert_no_dead_letters()


def test_asyncio_is_drained_as_well(outbox_site: OutboxSite) -> None:
    """By a client of the test's own event loop."""

    async def main() -> None:
        async with outbox_site.async_client() as client:
            outbox = AsyncOutbox(client[outbox_site.settings.mongodb_database])
            async with outbox.scope() as tx:
                await tx.publish(SiteOrderPaid(order_id="a"), headers={"request-id": "r"})

    asyncio.run(main())
    assert outbox_site.drain().published[0].event.headers["request-id"] == "r"


def test_what_hangs_is_named(outbox_site: OutboxSite) -> None:
    """drain() ends in time, and says what it waits for."""
    go_on = threading.Event()

    @handles(SiteOrderPaid, name="site.hangs", subscription="test")
    def hangs(event: Event[SiteOrderPaid]) -> None:
        if event.data.order_id != "first":
            go_on.wait(20)

    # The first one may wait for longer than the second below at a broker that is busy.
    outbox_site.outbox.publish(SiteOrderPaid(order_id="first"))
    outbox_site.drain(seconds=60)
    (event_id,) = outbox_site.outbox.publish(SiteOrderPaid(order_id="a"))
    try:
        with pytest.raises(
            NotDrained, match=rf"waits for the handler site\.hangs, at .*{event_id}"
        ):
            outbox_site.drain(seconds=1)
    finally:
        go_on.set()


def test_a_good_handler_keeps_the_contract(outbox_site: OutboxSite) -> None:
    """What it writes with its session is there once; what follows its commit may come again."""
    after: list[str] = []

    @handles(
        SiteOrderPaid,
        name="site.good",
        after_commit=lambda event: after.append(event.data.order_id),
    )
    def good(event: Event[SiteOrderPaid], session: Any) -> None:
        database = session.client[outbox_site.settings.mongodb_database]
        database.stock.update_one({"_id": 1}, {"$inc": {"count": -1}}, session=session)
        Outbox(database).publish({"name": "Counted", "data": {}}, session)

    outbox_site.database.stock.insert_one({"_id": 1, "count": 10})
    outbox_site.assert_contract(good, SiteOrderPaid(order_id="a"))
    assert outbox_site.database.stock.find_one() == {"_id": 1, "count": 9}
    assert outbox_site.waiting() == 1
    assert after == ["a"]


def test_writes_outside_of_the_session_are_found(outbox_site: OutboxSite) -> None:
    """By the handler's own client, or by an outbox without the session: with the line of each."""
    own: MongoClient[Any] = MongoClient(outbox_site.settings.mongodb_uri)

    @handles(SiteOrderPaid, name="site.bad", batch=5)
    def bad(events: list[Event[SiteOrderPaid]], session: Any) -> None:
        database = own[outbox_site.settings.mongodb_database]
        database.mails.insert_one({"to": events[0].data.order_id})
        session.client["shop"].drop_me.delete_many({"_id": "none"})
        Outbox(database).publish({"name": "Counted", "data": {}})

    with own, pytest.raises(AssertionError) as caught:
        outbox_site.assert_contract(bad, SiteOrderPaid(order_id="a"), SiteOrderPaid(order_id="b"))
    found = str(caught.value)
    for words in ("insert on ", ".mails (", "test_testing_site.py:", "delete on shop.drop_me"):
        assert words in found
    assert "__outboxMessages" in found


def test_what_the_second_try_fails_on_is_told(outbox_site: OutboxSite) -> None:
    """An id that was given outside of the session is there already when the handler comes again."""
    own: MongoClient[Any] = MongoClient(outbox_site.settings.mongodb_uri)

    @handles(SiteOrderPaid, name="site.clashes")
    def fails(event: Event[SiteOrderPaid]) -> None:
        own[outbox_site.settings.mongodb_database].mails.insert_one({"_id": event.id})

    with own, pytest.raises(AssertionError) as caught:
        outbox_site.assert_contract(fails, SiteOrderPaid(order_id="a"))
    second, *outside = str(caught.value).splitlines()
    assert second.startswith("The handler site.clashes fails when its transaction is tried again")
    assert "DuplicateKeyError" in second
    assert outside
    assert all("writes outside of its session: insert on " in each for each in outside)


def test_memory_outside_of_the_session_is_found(outbox_site: OutboxSite) -> None:
    """All that it skips when it is tried again, events too: each with its collection."""
    seen: set[str] = set()
    name = outbox_site.settings.mongodb_database

    @handles(SiteOrderPaid, name="site.remembers")
    def remembers(event: Event[SiteOrderPaid], session: Any) -> None:
        database = session.client[name]
        database.tries.insert_one({"event": event.id}, session=session)
        if event.id in seen:
            return
        seen.add(event.id)
        database.invoices.insert_many([{"n": 1}, {"n": 2}], session=session)
        database.stock.update_one({"_id": 1}, {"$inc": {"count": -1}}, session=session)
        database.carts.find_one_and_delete({"_id": 1}, session=session)
        Outbox(database).publish({"name": "Counted", "data": {}}, session)

    for each in (outbox_site.database.stock, outbox_site.database.carts):
        each.insert_one({"_id": 1, "count": 10})
    with pytest.raises(AssertionError) as caught:
        outbox_site.assert_contract(remembers, SiteOrderPaid(order_id="a"))
    (found,) = str(caught.value).splitlines()
    assert found.startswith("What a retried transaction of the handler site.remembers writes")
    assert (
        f"documents inserted in {name}.__outboxMessages: 0 when retried, 1 at first; "
        f"documents removed in {name}.carts: 0 when retried, 1 at first; "
        f"documents inserted in {name}.invoices: 0 when retried, 2 at first; "
        f"documents updated in {name}.stock: 0 when retried, 1 at first: does the handler remember"
    ) in found


def test_memory_that_grows_over_tries_is_found(outbox_site: OutboxSite) -> None:
    """What a try that was undone has left there is written by the next one as well."""
    waiting: list[str] = []
    name = outbox_site.settings.mongodb_database

    @handles(SiteOrderPaid, name="site.gathers", batch=5)
    def gathers(events: list[Event[SiteOrderPaid]], session: Any) -> None:
        waiting.extend(event.data.order_id for event in events)
        orders = session.client[name].orders
        orders.bulk_write([InsertOne({"order": each}) for each in waiting], session=session)

    with pytest.raises(
        AssertionError, match=rf"inserted in {name}\.orders: 4 when retried, 2 at first"
    ):
        outbox_site.assert_contract(
            gathers, SiteOrderPaid(order_id="a"), SiteOrderPaid(order_id="b")
        )


def test_what_differs_by_nature_keeps_the_contract(outbox_site: OutboxSite) -> None:
    """Ids, times and numbers by chance, and whether an upsert or update has changed anything."""
    chance = iter(range(10))

    @handles(SiteOrderPaid, name="site.chance")
    def by_chance(_event: Event[SiteOrderPaid], session: Any) -> None:
        database, number = session.client[outbox_site.settings.mongodb_database], next(chance)
        row = {"at": datetime.now(UTC), "chance": number, f"field{number}": ObjectId()}
        database.rows.insert_one(dict(row), session=session)
        database.totals.update_one(
            {"_id": number}, {"$inc": {"sum": 1}}, upsert=True, session=session
        )
        database.stock.update_one({"_id": 0}, {"$set": {"count": number}}, session=session)
        database.stock.find_one_and_update({"_id": 0}, {"$set": {"count": 7}}, session=session)

    for each in (outbox_site.database.stock, outbox_site.database.totals):
        each.insert_one({"_id": 0, "count": 0})
    outbox_site.assert_contract(by_chance, SiteOrderPaid(order_id="a"))
    assert next(chance) == 2, "it was to be called twice"
    assert outbox_site.database.rows.count_documents({"chance": 1}) == 1


def test_an_event_that_came_twice_in_a_batch_is_one(outbox_site: OutboxSite) -> None:
    """In both tries; what was handled before cannot be tried, and is refused by its id."""
    event = Event(id="e1", name="SiteOrderPaid", data={"orderId": "a"}, topic="t")
    name = outbox_site.settings.mongodb_database

    @handles(SiteOrderPaid, name="site.each", batch=5)
    def each(events: list[Event[SiteOrderPaid]], session: Any) -> None:
        rows = [{"order": event.data.order_id} for event in events]
        session.client[name].orders.insert_many(rows, session=session)

    outbox_site.assert_contract(each, event, event)
    assert outbox_site.database.orders.count_documents({}) == 1
    with pytest.raises(ConfigurationError, match=r"site\.each has handled event e1 before"):
        outbox_site.assert_contract(each, event)
    assert outbox_site.database.orders.count_documents({}) == 1


def test_a_transaction_that_has_written_may_schedule_the_first_event(
    outbox_site: OutboxSite,
) -> None:
    """As in production behind `outbox setup`, though each test has a database that is new."""
    with outbox_site.outbox.scope() as tx:
        outbox_site.database.orders.insert_one({"_id": "7"}, session=tx.session)
        tx.publish({"name": "Later", "data": {}}, deliver_in=timedelta(days=2))
    outbox_site.advance(timedelta(days=3))
    assert [each.event.name for each in outbox_site.drain().published] == ["Later"]


def test_the_clock_of_scheduled_events_can_be_moved(outbox_site: OutboxSite) -> None:
    """What is due then is relayed, the rest waits, and MongoDB's own clock stays."""
    with outbox_site.outbox.scope() as tx:
        for name, days in (("late", 2), ("early", 1)):
            tx.publish(SiteOrderPaid(order_id=name), deliver_in=timedelta(days=days))
        tx.publish(SiteOrderPaid(order_id="gone"), deliver_in=timedelta(1), schedule="gone")
    with outbox_site.outbox.scope() as tx:
        assert tx.cancel("gone")
    assert outbox_site.drain().published == []
    for name in ("early", "late"):
        outbox_site.advance(timedelta(days=1))
        (relayed,) = outbox_site.drain().published
        assert relayed.event.data["orderId"] == name
