"""The write side against a real MongoDB: data and events together, or neither."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from bson import Decimal128
from pymongo import errors as mongo

from postroom import DomainEvent, InvalidEvent, Outbox, OutboxError, ScopeClosed, Transaction

if TYPE_CHECKING:
    from tests.site import Site


class Assigned(DomainEvent):
    """A sample."""

    medicine_id: str
    patient_id: str = "p"


class Odd(DomainEvent):
    """A sample with anything in it."""

    value: Any


@pytest.fixture
def outbox(lite_site: Site) -> Outbox:
    """Return the outbox of a site."""
    return Outbox(lite_site.database, key="patientId")


def rows(site: Site) -> list[dict[str, Any]]:
    """Return the stored rows in order."""
    return list(site.outbox.find().sort("_id"))


def test_a_row_has_the_fields_of_hermes_and_the_key(lite_site: Site, outbox: Outbox) -> None:
    """_id, partitionKey, occurredAt, data; and ours, the key."""
    (event_id,) = outbox.publish(Assigned(medicine_id="m"))
    (row,) = rows(lite_site)
    assert list(row) == ["_id", "partitionKey", "occurredAt", "data", "key"]
    assert str(row["_id"]) == event_id
    assert row["partitionKey"] == "default"
    assert row["data"] == {"name": "Assigned", "data": {"medicineId": "m", "patientId": "p"}}
    assert row["key"] == "p"


def test_several_are_stored_in_order_or_none(lite_site: Site, outbox: Outbox) -> None:
    """A list is one transaction; one wrong event refuses all of them."""
    events = [Assigned(medicine_id=str(n)) for n in range(5)]
    ids = outbox.publish(events)
    assert [str(row["_id"]) for row in rows(lite_site)] == ids
    assert [row["data"]["data"]["medicineId"] for row in rows(lite_site)] == list("01234")
    with pytest.raises(InvalidEvent):
        outbox.publish([Assigned(medicine_id="6"), {"name": "NoData"}])
    assert len(rows(lite_site)) == 5
    assert outbox.publish([]) == []


def test_a_scope_commits_data_and_events_together(lite_site: Site, outbox: Outbox) -> None:
    """Both are there after the block, and neither before its end."""
    with outbox.scope() as tx:
        lite_site.database["things"].insert_one({"_id": 1}, session=tx.session)
        tx.publish(Assigned(medicine_id="m"))
        assert rows(lite_site) == []
    assert len(rows(lite_site)) == lite_site.database["things"].count_documents({}) == 1


def test_a_failing_scope_writes_nothing(lite_site: Site, outbox: Outbox) -> None:
    """The error passes through; neither data nor event is there."""
    lite_site.database.create_collection("things")
    with pytest.raises(KeyError), outbox.scope() as tx:
        lite_site.database["things"].insert_one({"_id": 1}, session=tx.session)
        tx.publish(Assigned(medicine_id="m"))
        raise KeyError
    assert rows(lite_site) == []
    assert lite_site.database["things"].count_documents({}) == 0


def test_a_closed_scope_takes_no_more(outbox: Outbox) -> None:
    """publish() after the block is refused."""
    with outbox.scope() as tx:
        pass
    with pytest.raises(ScopeClosed):
        tx.publish(Assigned(medicine_id="m"))


def test_a_session_without_a_transaction_is_refused(lite_site: Site, outbox: Outbox) -> None:
    """Data and event would not be one."""
    with lite_site.mongodb.start_session() as session:
        with pytest.raises(OutboxError, match="without a transaction"):
            outbox.publish(Assigned(medicine_id="m"), session)
        with session.start_transaction():
            outbox.publish(Assigned(medicine_id="m"), session)
    assert len(rows(lite_site)) == 1


def test_transact_runs_again_with_the_same_ids(lite_site: Site, outbox: Outbox) -> None:
    """A transient conflict runs the callback again; the ids of its events stay."""
    things = lite_site.database["things"]
    things.insert_one({"_id": 1, "n": 0})
    tries: list[list[str]] = []

    def work(tx: Transaction) -> str:
        ids = tx.publish([Assigned(medicine_id="a"), Assigned(medicine_id="b")])
        things.find_one({"_id": 1}, session=tx.session)
        tries.append(ids)
        if len(tries) == 1:
            other = threading.Thread(
                target=things.update_one, args=({"_id": 1}, {"$inc": {"n": 10}})
            )
            other.start()
            other.join()
        things.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=tx.session)
        return "done"

    assert outbox.transact(work) == "done"
    assert len(tries) == 2
    assert tries[0] == tries[1] == [str(row["_id"]) for row in rows(lite_site)]
    assert things.find_one() == {"_id": 1, "n": 11}


@pytest.mark.parametrize("value", [object(), 2**64, "x" * (6 << 20)])
def test_what_cannot_be_stored_is_refused_unseen(
    lite_site: Site, outbox: Outbox, value: object
) -> None:
    """The error names the event and says that nothing was written; it shows no data."""
    with pytest.raises(InvalidEvent, match=r"'Odd'.*nothing was written") as refused:
        outbox.publish([Assigned(medicine_id="m"), Odd(value=value)])
    assert len(str(refused.value)) < 300
    assert rows(lite_site) == []


def test_python_values_get_a_customary_form(lite_site: Site, outbox: Outbox) -> None:
    """Decimals, sets and the like are stored, not refused."""
    outbox.publish(Odd(value=[Decimal("1.50"), {"b", "a"}]))
    assert rows(lite_site)[0]["data"]["data"]["value"] == [Decimal128("1.50"), ["a", "b"]]


def test_headers_are_stored(lite_site: Site, outbox: Outbox) -> None:
    """They travel as properties later."""
    outbox.publish(Assigned(medicine_id="m"), headers={"traceparent": "00-1"})
    assert rows(lite_site)[0]["headers"] == {"traceparent": "00-1"}


def test_a_write_conflict_in_a_scope_is_the_callers(lite_site: Site, outbox: Outbox) -> None:
    """The block ran once; the error says that it may be tried again."""
    things = lite_site.database["things"]
    things.insert_one({"_id": 1, "n": 0})
    with pytest.raises(mongo.OperationFailure) as conflict, outbox.scope() as tx:
        tx.publish(Assigned(medicine_id="m"))
        things.find_one({"_id": 1}, session=tx.session)
        things.update_one({"_id": 1}, {"$inc": {"n": 10}})
        things.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=tx.session)
    assert conflict.value.has_error_label("TransientTransactionError")
    assert rows(lite_site) == []
