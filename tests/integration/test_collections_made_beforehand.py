"""Collections and indexes that an administrator has made before the first start."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from postroom import Event, errors, handles, preflight, wire
from postroom.failures import Kind, kind_of
from postroom.findings import Grade
from postroom.inbox.handling.inbox import Inbox
from postroom.relay.inspection import KEEPS
from postroom.store import checkpoint_index
from postroom.store.action_log import ActionLog
from postroom.store.begun import Begun
from postroom.store.repertoires import Repertoires
from tests.relays import relaying
from tests.site import ids
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from postroom.inbox.handling.handlers import Registry
    from tests.site import Site

# By strength 2 "order-a" and "ORDER-A" are one event; by numericOrdering "7" and "007" are.
ODD: dict[str, dict[str, Any]] = {
    "capped": {"capped": True, "size": 1 << 20},
    "a time series": {"timeseries": {"timeField": "at"}},
    "a view": {"viewOn": "other", "pipeline": []},
    "a collection with a collation": {"collation": {"locale": "en", "numericOrdering": True}},
}
PLAIN: list[dict[str, Any]] = [
    {"clusteredIndex": {"key": {"_id": 1}, "unique": True}},
    {"changeStreamPreAndPostImages": {"enabled": True}},
    {"validator": {"_id": {"$exists": True}}},
    {"collation": {"locale": "simple"}},
]
DAY = timedelta(days=1)


def inbox(database: Database[Any]) -> Inbox:
    """Return the inbox of a consumer."""
    return Inbox(database, subscription="billing", keep=DAY)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", [wire.INBOX, wire.BEGUN, wire.REPERTOIRES])
def test_a_consumer_keeps_nothing_in_what_is_no_plain_collection(
    lite_site: Site, name: str, kind: str
) -> None:
    """An event whose id only a collation takes for another one's was never handled."""
    lite_site.database.create_collection(name, **ODD[kind])
    with pytest.raises(errors.ServiceUnavailable, match=f"{name} of database .* is {kind}: "):
        inbox(lite_site.database).prepare()


@pytest.mark.parametrize("name", KEEPS)
def test_a_relay_keeps_nothing_in_what_is_no_plain_collection(lite_site: Site, name: str) -> None:
    """It says so and waits; once the collection is gone it goes on."""
    site = lite_site
    site.database.create_collection(name, **ODD["capped"])
    plain = site.subscribe()
    with relaying(site, wait=False) as relay:
        said = f"{name} of database {site.name!r} is capped: "
        wait_until(lambda: said in (relay.status.reason or ""), description="the sentence")
        site.database.drop_collection(name)
        written = site.insert(1)
        assert ids(site.receive(plain, 1)) == written


@pytest.mark.parametrize("options", PLAIN, ids=lambda options: next(iter(options)))
def test_what_does_no_harm_is_no_finding(lite_site: Site, options: dict[str, Any]) -> None:
    """Clustered ones for example, and the simple collation, which is none."""
    names = [wire.OUTBOX, *KEEPS, wire.INBOX]
    for name in names:
        lite_site.database.create_collection(name, **options)
    assert preflight.collections(lite_site.database, names) == []


def test_a_ttl_index_that_takes_rows_away_is_named(lite_site: Site) -> None:
    """Neither our own are, nor those by fields that are set once a row is done with."""
    database = lite_site.database
    inbox(database).prepare()
    database[wire.OUTBOX].create_index("sentAt", expireAfterSeconds=60)
    database[wire.FIRED].create_index("firedAt", expireAfterSeconds=60)
    database.create_collection(wire.QUARANTINE, viewOn="other", pipeline=[])
    database[wire.CHECKPOINTS].create_index("partitionKey", unique=True)
    names = [wire.OUTBOX, *KEEPS, wire.INBOX, wire.BEGUN]
    assert preflight.deletions(database, names) == []
    database[wire.OUTBOX].create_index("occurredAt", name="dba", expireAfterSeconds=60)
    (found,) = preflight.deletions(database, names)
    assert found.grade is Grade.WARN
    assert f"'dba' of {wire.OUTBOX} has MongoDB delete rows 60 s after their 'occurr" in found.found
    assert found.remedy == f'In mongosh: db.getCollection("{wire.OUTBOX}").dropIndex("dba")'


def test_a_validator_that_refuses_the_inboxs_rows_gives_up_no_event(
    lite_site: Site, own: Registry
) -> None:
    """Each event would have become a dead letter, though nothing is wrong with any of them."""
    database = lite_site.database
    database.create_collection(wire.INBOX, validator={"nope": {"$exists": True}})

    @handles("Counted", name="seen", into=own)
    def seen(event: Event[Any], session: ClientSession) -> None:
        database["seen"].insert_one({"number": event.data["number"]}, session=session)

    remembering = inbox(database)
    remembering.prepare()
    event = Event(id="1", name="Counted", data={"number": 1}, topic="t")
    with pytest.raises(errors.ServiceUnavailable, match=f"A validator of {wire.INBOX}") as refused:
        remembering.apply(own.handlers["seen"], [event])
    assert kind_of(refused.value) is Kind.OUTAGE
    assert not database["seen"].count_documents({})


EXPIRING: dict[str, tuple[str, Callable[[Database[Any]], None]]] = {
    wire.INBOX: ("handledAt", lambda database: inbox(database).prepare()),
    wire.BEGUN: ("begunAt", lambda database: Begun(database, owner="").prepare()),
    wire.REPERTOIRES: (
        "seenAt",
        lambda database: Repertoires(database, subscription="billing", worker="").prepare(),
    ),
    wire.ACTIONS: ("beganAt", lambda database: ActionLog(database).prepare()),
}


@pytest.mark.parametrize("options", [{}, {"expireAfterSeconds": 7}], ids=["plain", "ttl"])
@pytest.mark.parametrize("name", EXPIRING)
def test_an_index_of_the_same_field_serves_by_any_name(
    lite_site: Site, name: str, options: dict[str, Any]
) -> None:
    """A consumer came back for ever with a bare code; rows expire when ours would have them."""
    field, prepare = EXPIRING[name]
    rows = lite_site.database[name]
    rows.create_index(field, name="dba", **options)
    prepare(lite_site.database)
    assert preflight.deletions(lite_site.database, [name]) == []
    assert rows.index_information()["dba"]["expireAfterSeconds"] >= DAY.total_seconds()


def test_checkpoints_are_unique_by_an_index_of_any_name(lite_site: Site) -> None:
    """One of its own name that is not unique is named, with the command against it."""
    rows = lite_site.database[wire.CHECKPOINTS]
    rows.create_index("partitionKey", name=wire.CHECKPOINT_INDEX)
    with pytest.raises(errors.ServiceUnavailable, match=f"The index {wire.CHECKPOINT_INDEX} of"):
        checkpoint_index.prepare(lite_site.database)
    rows.drop_index(wire.CHECKPOINT_INDEX)
    rows.create_index("partitionKey", name="dba", unique=True)
    checkpoint_index.prepare(lite_site.database)
    assert set(rows.index_information()) == {"_id_", "dba"}
