"""A Celery application whose handlers fail in every way that the tests need."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bson import ObjectId
from celery import Celery, signals
from pydantic import field_validator
from pymongo import InsertOne, MongoClient, UpdateOne
from pymongo.errors import DuplicateKeyError

from postroom import DomainEvent, Event, Outbox, Reject, Retry, Write, handles
from postroom import settings as settings_module
from postroom.celery import install
from postroom.inbox.handling.handlers import registry
from tests import children

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession
    from pymongo.collection import Collection

logger = logging.getLogger(__name__)
settings = settings_module.load()
app = Celery(
    "shop",
    broker=settings.redis_url,
    backend=settings.redis_url,
    task_cls=os.environ.get("SHOP_TASK_CLS"),
)
app.conf.update(
    broker_connection_max_retries=None,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"socket_timeout": 2.0, "socket_connect_timeout": 2.0},
)
app.conf.update(json.loads(os.environ.get("SHOP_CONF", "{}")))
consumed = os.environ.get("SHOP_TOPICS", "").split()
queues = os.environ.get("SHOP_QUEUES", "relay consumer").split()
install(
    app,
    settings,
    consume={"test": consumed} if consumed else None,
    relay_queue=queues[0],
    consumer_queue=queues[1],
)

QUICK: dict[str, Any] = {"backoff_seconds": 0.2}
POISON = 13


class Typed(DomainEvent):
    """An event with a number."""

    number: int


def collection(session: ClientSession, name: str) -> Collection[Any]:
    """Return a collection of the database."""
    return session.client[settings.mongodb_database][name]


def note(event: Event[Any], session: ClientSession, handler: str) -> None:
    """Note that a handler has seen an event, in the handler's transaction."""
    number = event.data.number if isinstance(event.data, Typed) else event.data.get("number")
    entry = {"event": event.id, "number": number, "key": event.key, "handler": handler}
    collection(session, "seen").insert_one(entry, session=session)
    if event.key is not None:
        # The order in which transactions commit, which ids made by several processes do not tell.
        push = {"$push": {"numbers": number}}
        charts = collection(session, "charts")
        charts.update_one({"_id": event.key}, push, upsert=True, session=session)


def tries(event: Event[Any], session: ClientSession) -> int:
    """Count the attempts for an event, outside of the transaction, and return the count."""
    counter = collection(session, "tries")
    counter.update_one({"_id": event.id}, {"$inc": {"n": 1}}, upsert=True)
    return int(next(counter.find({"_id": event.id}))["n"])


@app.task(name="shop.touch")  # type: ignore[untyped-decorator]  # celery has no types
def touch(path: str) -> None:
    """Make a file: a task of the application that has nothing to do with events."""
    Path(path).touch()


@handles("Counted", "Both", name="shop.note")
def on_counted(event: Event[Any], session: ClientSession) -> None:
    """Note the event."""
    note(event, session, "note")


@handles(Typed, name="shop.typed")
def on_typed(event: Event[Typed], session: ClientSession) -> None:
    """Note the typed event."""
    note(event, session, "typed")


@handles("Flaky", name="shop.flaky", max_attempts=10)
def on_flaky(event: Event[Any], session: ClientSession) -> None:
    """Write, then ask to be tried again, twice."""
    note(event, session, "flaky")
    if tries(event, session) < 3:
        raise Retry("not yet", after=timedelta(seconds=0.3))


@handles("Broken", "Both", name="shop.broken", max_attempts=2, **QUICK)
def on_broken(event: Event[Any], session: ClientSession) -> None:
    """Write, then fail unless mended."""
    note(event, session, "broken")
    if not collection(session, "mended").find_one():
        raise ValueError("broken")


@handles("Rejected", name="shop.rejected")
def on_rejected(event: Event[Any]) -> None:
    """Give up at once."""
    raise Reject("not wanted")


@handles("GivenUp", name="shop.given_up", give_up_on=[LookupError])
def on_given_up(event: Event[Any]) -> None:
    """Fail with an error that is given up on."""
    raise KeyError("gone")


@handles("Exit", name="shop.exit", max_attempts=2, **QUICK)
def on_exit(event: Event[Any]) -> None:
    """Try to end the process."""
    sys.exit(3)


@handles("Crash", name="shop.crash", max_attempts=2)
def on_crash(event: Event[Any]) -> None:
    """End the process, as a crash in a library would."""
    os._exit(7)


@handles("Long", name="shop.long", max_attempts=2)
def on_long(event: Event[Any], session: ClientSession) -> None:
    """Be at work for some seconds, and say since when."""
    tries(event, session)
    threading.Event().wait(float(os.environ.get("SHOP_LONG_SECONDS", "3")))
    note(event, session, "long")


@handles("Fault", name="shop.fault", max_attempts=2)
def on_fault(event: Event[Any], session: ClientSession) -> None:
    """Have the process end as a fault in a library would."""
    tries(event, session)
    os.kill(os.getpid(), signal.SIGSEGV)
    threading.Event().wait(5)


@handles("Hot", name="shop.hot", max_attempts=2, **QUICK)
@handles("Hotter", name="shop.hotter", max_attempts=2, **QUICK)
def on_hot(event: Event[Any], session: ClientSession) -> None:
    """Write the one document that all write, and hold it for a while."""
    collection(session, "runs").insert_one({"event": event.id})
    push = {"$push": {"numbers": event.data["number"]}}
    collection(session, "charts").update_one({"_id": "hot"}, push, upsert=True, session=session)
    threading.Event().wait(float(os.environ.get("SHOP_HOT_SECONDS", "0.5")))


@handles("Swallow", name="shop.swallow", max_attempts=2, **QUICK)
def on_swallow(event: Event[Any], session: ClientSession) -> None:
    """Provoke an error of MongoDB with private data in its text."""
    things = collection(session, "things")
    patient = event.data["number"]
    things.insert_many([{"_id": 1, "patient": patient}, {"_id": 1}], session=session)


@handles("Odd", name="shop.odd")
def on_odd(event: Event[Any], session: ClientSession) -> object:
    """Return something that no one can serialise."""
    note(event, session, "odd")
    return threading.Lock()


@handles("Hang", name="shop.hang", timeout_seconds=1.0, max_attempts=3, **QUICK)
def on_hang(event: Event[Any], session: ClientSession) -> None:
    """Hang at the first attempt."""
    if tries(event, session) == 1:
        threading.Event().wait(20)
    note(event, session, "hang")


@handles("Quoted", name="shop.quoted", max_attempts=2, **QUICK)
def on_quoted(event: Event[Any], session: ClientSession) -> None:
    """Have libraries quote what is private, in all the ways that an event asks for."""
    private = event.data["number"]
    match event.headers.get("way"):
        case "bson":
            collection(session, "things").insert_one({"a": {private}}, session=session)
        case "id":
            ObjectId(private)
        case "int":
            int(private)
        case "key":
            event.data[private]
        case "own":
            raise ValueError("the words of the application")


@handles("Ordered", name="shop.ordered")
def on_ordered(event: Event[Any], session: ClientSession) -> None:
    """Note the order within each of four series."""
    number = event.data["number"]
    push = {"$push": {"numbers": number}}
    charts = collection(session, "charts")
    charts.update_one({"_id": f"o{number % 4}"}, push, upsert=True, session=session)


@handles("Onward", name="shop.onward", max_attempts=2, **QUICK)
def on_onward(event: Event[Any], session: ClientSession) -> None:
    """Publish an event, by the number of outbox partitions that this worker has."""
    tries(event, session)
    note(event, session, "onward")
    outbox = Outbox(session.client[settings.mongodb_database], key="of")
    outbox.publish({"name": "Arrived", "data": event.data}, session=session)


@handles("Parked", name="shop.parked", max_attempts=100, backoff_seconds=2)
def on_parked(event: Event[Any], session: ClientSession) -> None:
    """Fail until mended, slowly."""
    tries(event, session)
    if not collection(session, "mended").find_one():
        raise ValueError("not mended")
    note(event, session, "parked")


HANGS: dict[str, bool] = {}


def hang_once(where: str) -> None:
    """Hang, the first time that this process comes by, or each time where that is asked for."""
    if HANGS.setdefault(where, True):
        HANGS[where] = bool(os.environ.get("SHOP_HANGS_ALWAYS"))
        threading.Event().wait(20)


class Stubborn(DomainEvent):
    """An event whose validation hangs."""

    number: int

    @field_validator("number")
    @classmethod
    def wait(cls, number: int) -> int:
        """Hang."""
        hang_once("Validator")
        return number


@signals.task_received.connect  # type: ignore[untyped-decorator]
def received(request: Any, **_: Any) -> None:
    """Hang while a task is taken in that asks for it."""
    if request.name == "shop.received":
        hang_once("Received")


@signals.task_prerun.connect  # type: ignore[untyped-decorator]
def before(task: Any, **_: Any) -> None:
    """Hang before the handler that asks for it; say what a request tells a curious receiver."""
    logger.info("About to run %r %r", task.request, vars(task.request))
    if task.name == "shop.prerun":
        hang_once("Prerun")


@signals.task_postrun.connect  # type: ignore[untyped-decorator]
def behind(task: Any, **_: Any) -> None:
    """Hang after the handler that asks for it."""
    if task.name == "shop.postrun":
        hang_once("Postrun")


def hang_afterwards(_: Any) -> None:
    """Hang when the effect is there."""
    hang_once("Afterwards")


HASTY: dict[str, Any] = {"timeout_seconds": 1.0, "max_attempts": 3, **QUICK}


@handles("Received", name="shop.received", **HASTY)
@handles("Prerun", name="shop.prerun", **HASTY)
@handles("Postrun", name="shop.postrun", **HASTY)
@handles(Stubborn, name="shop.validator", **HASTY)
@handles("Afterwards", name="shop.afterwards", after_commit=hang_afterwards, **HASTY)
def on_hasty(event: Event[Any], session: ClientSession) -> None:
    """Note the event; something around this hangs the first time."""
    number = event.data.number if isinstance(event.data, Stubborn) else event.data["number"]
    entry = {"event": event.id, "number": number, "key": event.key, "handler": "hasty"}
    collection(session, "seen").insert_one(entry, session=session)


@handles("Stuck", name="shop.stuck", timeout_seconds=1.0, max_attempts=1)
def on_stuck(event: Event[Any]) -> None:
    """Hang, for longer than anyone waits."""
    threading.Event().wait(60)


@handles("Slow", name="shop.slow")
def on_slow(event: Event[Any], session: ClientSession) -> None:
    """Take two seconds."""
    tries(event, session)
    threading.Event().wait(2)
    note(event, session, "slow")


@handles("Batched", name="shop.batched", batch=50, max_attempts=2, **QUICK)
def on_batch(events: list[Event[Any]], session: ClientSession) -> None:
    """Note a list of events, unless the poison one is among them."""
    for event in events:
        note(event, session, "batched")
    collection(session, "batches").insert_one({"size": len(events)}, session=session)
    if any(event.data["number"] == POISON for event in events):
        raise ValueError("poison")


@handles("Forking", name="shop.forking", max_attempts=1)
def on_forking(event: Event[Any], session: ClientSession) -> None:
    """Do some of the work in another process, while other threads hold locks."""
    path = Path(os.environ["SHOP_FOLDER"]) / event.id
    held = children.locks_of_others if event.data.get("locks") else contextlib.nullcontext
    with held():
        if not children.WORKING[event.data["way"]](str(path)):
            raise ValueError("the child hangs")
    note(event, session, "forking")


@handles("Leaving", name="shop.leaving", timeout_seconds=50)
def on_leaving(event: Event[Any], session: ClientSession) -> None:
    """Start a process that outlives the worker, at the first attempt, and wait for its end."""
    if tries(event, session) == 1:
        threading.Event().wait(2)
        children.LEAVING[os.environ["SHOP_START"]]()
        (Path(os.environ["SHOP_FOLDER"]) / event.id).touch()
        threading.Event().wait(45)
    note(event, session, "leaving")


def spoil(event: Event[Any], session: ClientSession) -> None:
    """Catch an error by which MongoDB ends the transaction."""
    things = collection(session, "things")
    with contextlib.suppress(DuplicateKeyError):
        for _ in range(2):
            things.insert_one({"_id": event.id}, session=session)


@handles("Grouped", name="shop.grouped", group=16, max_attempts=2, timeout_seconds=3, **QUICK)
def on_grouped(event: Event[Any], session: ClientSession) -> None:
    """Note the event and which transaction it came in; fail in the way that it asks for."""
    where = {"transaction": session._transaction_id, "event": event.id}
    collection(session, "grouped").insert_one(
        {**where, "session": str(session.session_id["id"])}, session=session
    )
    note(event, session, "grouped")
    match event.data.get("way"):
        case "raises":
            raise ValueError("broken")
        case "rejected":
            raise Reject("not wanted")
        case "commits":
            session.commit_transaction()
        case "hangs" if tries(event, session) == 1:
            threading.Event().wait(20)
        case "crashes":
            os._exit(7)
        case "spoils":
            spoil(event, session)
        case "later" if tries(event, session) == 1:
            raise Retry("not yet", after=timedelta(seconds=1.5))
        case "hot":
            push = {"$push": {"numbers": event.data["number"]}}
            collection(session, "charts").update_one(
                {"_id": "hot"}, push, upsert=True, session=session
            )
        case "waits" | "blocks" as way:
            threading.Event().wait(0.1 if way == "waits" else 0.7)


# In MongoDB, which is told to end it.
SLEEP = {"$function": {"body": "function() { sleep(20000); return 1 }", "args": [], "lang": "js"}}


@handles("Returned", name="shop.returned", group=16, max_attempts=2, timeout_seconds=2, **QUICK)
def on_returned(event: Event[Any]) -> list[Write]:
    """Return what notes the event, and what MongoDB refuses while there is a certain document."""
    number = event.data["number"]
    entry = {"event": event.id, "number": number, "key": event.key, "handler": "returned"}
    push = {"$push": {"numbers": number}}
    match event.data.get("way"):
        case "blocks":
            threading.Event().wait(0.7)
        case "sleeps":
            return [Write("things", UpdateOne({}, [{"$set": {"slept": SLEEP}}], upsert=True))]
        case "refused":
            return [Write("seen", InsertOne(entry)), Write("things", InsertOne({"_id": "taken"}))]
    return [
        Write("seen", InsertOne(entry)),
        Write("charts", UpdateOne({"_id": event.key or "none"}, push, upsert=True)),
    ]


def after_group(event: Event[Any]) -> None:
    """Note that the transaction is committed, outside of any; fail once where that is asked for."""
    seen = database()["after"]
    if event.data.get("way") == "after" and not seen.find_one({"event": event.id}):
        seen.insert_one({"event": event.id, "failed": True})
        raise ValueError("after")
    applied = database()["seen"].find_one({"event": event.id}) is not None
    seen.insert_one({"event": event.id, "applied": applied})


def database() -> Any:
    """Return the database, by a client of its own."""
    return _client()[settings.mongodb_database]


@functools.cache
def _client() -> Any:
    return MongoClient(settings.mongodb_uri)


@handles(
    "Announced", name="shop.announced", group=16, after_commit=after_group, max_attempts=3, **QUICK
)
def on_announced(event: Event[Any], session: ClientSession) -> None:
    """Note the event, and say it to the world behind the commit."""
    note(event, session, "announced")
    if event.data.get("way") == "blocks":
        threading.Event().wait(0.7)


# As a release was before these handlers were added.
for _name in os.environ.get("SHOP_WITHOUT", "").split():
    del registry.handlers[_name]
