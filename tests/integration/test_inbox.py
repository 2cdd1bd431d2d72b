"""The inbox against a real MongoDB: an effect once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pymongo.errors import OperationFailure, PyMongoError

from postroom import Event, errors, handles
from postroom.failures import Kind, kind_of
from postroom.inbox.handling.call import Call
from postroom.inbox.handling.handlers import Handler, Registry
from postroom.inbox.handling.inbox import Inbox
from postroom.inbox.handling.orphans import PAUSE_SECONDS, app_name
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

    from tests.site import Site


# Remembers an event in a transaction, and is killed then.
KILLED = """
import json, sys, time
from pymongo import MongoClient
name, database, row = json.loads(sys.argv[2])
client = MongoClient(sys.argv[1], appname=name)
session = client.start_session()
session.start_transaction()
client[database]["__inboxMessages"].insert_one({"_id": row}, session=session)
print("!", end="", flush=True)
time.sleep(600)
"""


def event(number: int | str) -> Event[dict[str, Any]]:
    """Return an event as it comes from the topic."""
    return Event(id=str(number), name="Counted", data={"number": number}, topic="t")


@pytest.fixture
def inbox(lite_site: Site) -> Inbox:
    """Return an inbox of a site, made ready."""
    found = Inbox(lite_site.database, subscription="s", keep=timedelta(days=30))
    found.prepare()
    lite_site.database.create_collection("seen")
    return found


def handler(site: Site, *, batch: int | None = None, fail: list[Any] | None = None) -> Handler:
    """Return a handler that notes the numbers it sees, and fails when told."""
    found = Registry()

    @handles("Counted", name="note", batch=batch, into=found)
    def note(events: Any, session: ClientSession) -> None:
        for each in events if isinstance(events, list) else [events]:
            number = each.data["number"]
            site.database["seen"].insert_one({"number": number}, session=session)
            if fail and number in fail:
                raise RuntimeError(number)

    return found.handlers["note"]


def seen(site: Site) -> list[Any]:
    """Return the numbers that were noted."""
    return sorted(row["number"] for row in site.database["seen"].find())


def test_an_event_is_applied_once(lite_site: Site, inbox: Inbox) -> None:
    """The second delivery finds the row of the first."""
    found = [str(inbox.apply(handler(lite_site), [event(1)])) for _ in range(3)]
    assert found == ["handled", *["handled 0, 1 had been handled before"] * 2]
    assert seen(lite_site) == [1]


def test_another_subscription_applies_it_again(lite_site: Site, inbox: Inbox) -> None:
    """The inbox remembers for each subscription and handler."""
    other = Inbox(lite_site.database, subscription="o", keep=timedelta(days=30))
    inbox.apply(handler(lite_site), [event(1)])
    other.apply(handler(lite_site), [event(1)])
    assert seen(lite_site) == [1, 1]


def test_a_failing_handler_leaves_nothing(lite_site: Site, inbox: Inbox) -> None:
    """What it wrote before it raised is gone, and the event is not remembered."""
    with pytest.raises(RuntimeError):
        inbox.apply(handler(lite_site, fail=[1]), [event(1)])
    assert seen(lite_site) == []
    assert str(inbox.apply(handler(lite_site), [event(1)])) == "handled"


def test_eight_at_once_apply_it_once(lite_site: Site, inbox: Inbox) -> None:
    """Concurrent deliveries of the same event conflict; one wins, and others may be told so."""
    note = handler(lite_site)

    def apply() -> None:
        try:
            inbox.apply(note, [event(1)])
        except OperationFailure as error:
            if kind_of(error) is not Kind.CONFLICT:
                raise

    threads = [threading.Thread(target=apply) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen(lite_site) == [1]


def test_a_call_that_is_cut_off_never_commits(lite_site: Site, inbox: Inbox) -> None:
    """What a hanging call holds is free at once, and waking up it can write nothing."""
    hangs, wakes = threading.Event(), threading.Event()
    notes = lite_site.database["seen"]
    first_registry, second_registry = Registry(), Registry()

    @handles("Counted", name="note", into=first_registry)
    def hang(event: Event[Any], session: ClientSession) -> None:
        notes.update_one(
            {"_id": 1}, {"$set": {"by": "the one that hangs"}}, upsert=True, session=session
        )
        hangs.set()
        wakes.wait(30)

    @handles("Counted", name="note", into=second_registry)
    def work(event: Event[Any], session: ClientSession) -> None:
        notes.update_one({"_id": 1}, {"$set": {"by": "the next"}}, upsert=True, session=session)

    call, failed = Call(), []

    def first() -> None:
        try:
            inbox.apply(first_registry.handlers["note"], [event(1)], call)
        except (PyMongoError, errors.HandlerTimeout) as error:
            failed.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert hangs.wait(30)
    inbox.cut_off(call)
    inbox.apply(second_registry.handlers["note"], [event(1)])
    wakes.set()
    thread.join()
    assert len(failed) == 1
    assert [row["by"] for row in notes.find()] == ["the next"]


@pytest.mark.parametrize("contends", [False, True])
def test_an_orphan_is_ended_however_slow_the_tries_are(
    lite_site: Site, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, *, contends: bool
) -> None:
    """By the first who meets it and gives up for now, in turn or not; MongoDB takes a minute."""
    monkeypatch.setattr("postroom.inbox.handling.tries.MOMENT_SECONDS", 0.0)
    noted = handler(lite_site)
    row = inbox._row_id(noted, event(1)).stored()
    killed = [sys.executable, "-c", KILLED, lite_site.environment["POSTROOM_MONGODB_URI"]]
    words = json.dumps([app_name(), lite_site.name, row])
    with subprocess.Popen([*killed, words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"!"
        process.kill()

    def is_applied() -> bool:
        try:
            return inbox.apply(noted, [event(1)], contends=contends).handled == 1
        except (PyMongoError, errors.NotItsTurn):
            return False

    wait_until(is_applied, description="it is handled", seconds=PAUSE_SECONDS + 20)
    assert seen(lite_site) == [1]


def test_a_batch_leaves_out_what_was_handled(lite_site: Site, inbox: Inbox) -> None:
    """Only the fresh ones of a batch reach the handler."""
    inbox.apply(handler(lite_site, batch=10), [event(2), event(4)])
    applied = inbox.apply(handler(lite_site, batch=10), [event(n) for n in range(1, 6)])
    assert (applied.handled, applied.repeated) == (3, 2)
    assert seen(lite_site) == [1, 2, 3, 4, 5]


def test_an_event_twice_in_one_batch_is_applied_once(lite_site: Site, inbox: Inbox) -> None:
    """A producer that sent it twice may have both in one batch."""
    applied = inbox.apply(handler(lite_site, batch=10), [event(1), event(1), event(2)])
    assert (applied.handled, applied.repeated) == (2, 1)
    assert seen(lite_site) == [1, 2]


def test_a_very_long_id_is_remembered(lite_site: Site, inbox: Inbox) -> None:
    """An id longer than an index key likes is remembered by its hash."""
    for _ in range(2):
        inbox.apply(handler(lite_site), [event("x" * 5000)])
    assert len(seen(lite_site)) == 1


def test_rows_expire_after_the_time_that_is_set(lite_site: Site, inbox: Inbox) -> None:
    """A changed time changes the index."""
    changed = Inbox(lite_site.database, subscription="s", keep=timedelta(days=2))
    changed.prepare()
    indexes = lite_site.database["__inboxMessages"].index_information()
    assert indexes["idx_handledAt_ttl"]["expireAfterSeconds"] == 2 * 86_400


@pytest.mark.parametrize("days", [0.001, 20_000])
def test_the_shortest_and_the_longest_time_are_kept(lite_site: Site, days: float) -> None:
    """MongoDB takes both, and the inbox remembers for that long."""
    keep = timedelta(days=lite_site.settings(inbox_days=days).inbox_days)
    inbox = Inbox(lite_site.database, subscription="s", keep=keep)
    inbox.prepare()
    for _ in range(2):
        inbox.apply(handler(lite_site), [event(1)])
    assert len(seen(lite_site)) == 1
