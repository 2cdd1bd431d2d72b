"""Handlers that succeed: at once, after a while, after some attempts, or one behind the other."""

from __future__ import annotations

import random
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from postroom import DomainEvent, Event, Retry, Write, handles
from tests.chaos.handling.notes import APPLIED, GROUP, HOT, OWN, database, note, noted

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

__all__ = ["Typed"]


class Typed(DomainEvent):
    """An event with a number."""

    number: int


@handles("Counted", name="chaos.counted", subscription=OWN, group=GROUP)
def on_counted(event: Event[Any]) -> list[Write]:
    """Note the event by what is returned."""
    return noted(event, "main", event.data["number"])


@handles(Typed, name="chaos.typed", subscription=OWN, group=GROUP)
def on_typed(event: Event[Typed], session: ClientSession) -> None:
    """Note the typed event."""
    note(event, session, "main", event.data.number)


@handles("Flaky", name="chaos.flaky", subscription=OWN, group=GROUP, max_attempts=20)
def on_flaky(event: Event[Any], session: ClientSession) -> None:
    """Write, then ask to be tried again, twice."""
    note(event, session, "main", event.data["number"])
    tries = database(session)["tries"]
    tries.update_one({"_id": event.id}, {"$inc": {"n": 1}}, upsert=True)
    if next(tries.find({"_id": event.id}))["n"] < 3:
        raise Retry("not yet", after=timedelta(seconds=0.3))


@handles("Slow", name="chaos.slow", subscription=OWN, group=GROUP)
def on_slow(event: Event[Any], session: ClientSession) -> None:
    """Take some seconds, before and after the first write."""
    threading.Event().wait(random.uniform(0.5, 2.0))
    note(event, session, "main", event.data["number"])
    threading.Event().wait(random.uniform(0.5, 2.0))


@handles("Hot", name="chaos.hot", subscription=OWN, group=GROUP)
def on_hot(event: Event[Any], session: ClientSession) -> None:
    """Write the one document that all of these write, and hold it for a while."""
    found = database(session)
    found[HOT].update_one({"_id": 0}, {"$inc": {"count": 1}}, upsert=True, session=session)
    threading.Event().wait(random.uniform(0.05, 0.2))
    found[APPLIED].insert_one({"event": event.id, "handler": "main"}, session=session)
