"""What the handlers write: what was applied, and each key's chart."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pymongo import InsertOne, UpdateOne

from postroom import Write

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from postroom import Event

__all__ = ["APPLIED", "AUDITORS", "CHARTS", "GROUP", "HOT", "OWN", "database", "note", "noted"]

APPLIED, CHARTS, HOT = "applied", "charts", "hot"
# The subscription of most handlers, and that of the one which has none of its own in some runs.
OWN = "test"
# How many events may share a transaction.
GROUP = int(os.environ.get("CHAOS_GROUP", "1"))
AUDITORS = os.environ.get("CHAOS_AUDITORS", OWN)


def database(session: ClientSession) -> Database[Any]:
    """Return the run's database."""
    return session.client[os.environ["POSTROOM_MONGODB_DATABASE"]]


def noted(event: Event[Any], handler: str, number: int) -> list[Write]:
    """Return what notes an event as applied, behind the others of its key, to be written."""
    found = [Write(APPLIED, InsertOne({"event": event.id, "handler": handler}))]
    if event.key is not None:
        # The order in which transactions commit, which ids made by several processes do not tell.
        push = {"$push": {"numbers": number}}
        found.append(Write(CHARTS, UpdateOne({"_id": event.key}, push, upsert=True)))
    return found


def note(event: Event[Any], session: ClientSession, handler: str, number: int) -> None:
    """Do the same with the session."""
    found = database(session)
    found[APPLIED].insert_one({"event": event.id, "handler": handler}, session=session)
    if event.key is not None:
        push = {"$push": {"numbers": number}}
        found[CHARTS].update_one({"_id": event.key}, push, upsert=True, session=session)
