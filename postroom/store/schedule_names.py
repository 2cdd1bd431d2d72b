"""Schedule names: which event waits under a name, or was the last that did.

One row for each name of an outbox, under an id that is both, so that no two events have it. Whether
its event still waits the plan alone says: what is due is moved without a look at its name, and
whoever cancels or moves an event by its name changes its row in the plan, where MongoDB finds the
conflict with the move. A name goes with its event when that is cancelled, and with what is kept of
it a while after it was fired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from pymongo import WriteConcern
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store.codec import SHOWING
from postroom.wire import ScheduleNameField

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from postroom.store.partitioning_record import Commands

__all__ = ["LONGEST", "Named", "ScheduleNames", "event_of", "given", "is_name", "offered", "taken"]

LONGEST = 256
MS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """An event of an outbox, and the name that it was scheduled under."""

    base: str
    name: str
    row_id: Any


def is_name(value: object) -> TypeGuard[str]:
    """Say whether a value is the name of a scheduled event."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def offered(named: Named) -> dict[str, Any]:
    """Return the command that gives a name to an event unless there is a row for it already.

    What it `upserted` its reply says; it changes nothing otherwise, and conflicts with nobody.
    """
    event = {"$setOnInsert": {ScheduleNameField.EVENT_ID: named.row_id}}
    change = {"q": _with_name(named.base, named.name), "u": event, "upsert": True}
    return {"update": wire.SCHEDULE_NAMES, "updates": [change]}


def given(named: Named) -> dict[str, Any]:
    """Return the command that gives a name which has a row to another event."""
    event = {"$set": {ScheduleNameField.EVENT_ID: named.row_id}}
    change = {"q": _with_name(named.base, named.name), "u": event}
    return {"update": wire.SCHEDULE_NAMES, "updates": [change]}


def taken(named: Named) -> dict[str, Any]:
    """Return the command that takes a name away from an event; another's of the name stays."""
    mine = {**_with_name(named.base, named.name), ScheduleNameField.EVENT_ID: named.row_id}
    return {"delete": wire.SCHEDULE_NAMES, "deletes": [{"q": mine, "limit": 1}]}


def event_of(base: str, name: str) -> Commands[Any]:
    """Return the id of the event that has a name, waiting or not; None where none has it."""
    reply = yield {
        "find": wire.SCHEDULE_NAMES,
        "filter": _with_name(base, name),
        "limit": 1,
        "singleBatch": True,
    }
    return next(
        (row.get(ScheduleNameField.EVENT_ID) for row in reply["cursor"]["firstBatch"]), None
    )


class ScheduleNames:
    """The names of a database, as those see them who act on many events. Safe from any thread."""

    def __init__(self, database: Database[Any]) -> None:
        self._rows = database.get_collection(
            wire.SCHEDULE_NAMES,
            codec_options=SHOWING,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", wtimeout=MS),
        )

    def events_of(self, bases: Iterable[str], name: str) -> list[Any]:
        """Return the ids of the events that have a name in some outboxes, waiting or not."""
        ids = [_id_of(base, name) for base in bases]
        found = self._rows.find({ScheduleNameField.ID: {"$in": ids}}, max_time_ms=MS)
        return [row.get(ScheduleNameField.EVENT_ID) for row in found]

    def take_all(self, named: Sequence[Named], session: ClientSession | None = None) -> None:
        """Take their names away from events, as taken() does from one."""
        if named:
            # No event ever has two names, so that no other pair is among these.
            ids = {"$in": [_id_of(each.base, each.name) for each in named]}
            events = {"$in": [each.row_id for each in named]}
            self._rows.delete_many(
                {ScheduleNameField.ID: ids, ScheduleNameField.EVENT_ID: events}, session=session
            )


def _with_name(base: str, name: str) -> Mapping[str, Any]:
    return {ScheduleNameField.ID: _id_of(base, name)}


def _id_of(base: str, name: str) -> dict[str, str]:
    # The order of the fields counts.
    return {ScheduleNameField.PARTITION: base, ScheduleNameField.SCHEDULE: name}
