"""The plan: events that are due later, written, cancelled and moved in a caller's transaction.

Everything here is commands to be run, as `partitioning_record.run` does, so that writers with and
without asyncio have one set of rules.
"""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bson import ObjectId
from pymongo import errors as mongo

from postroom import errors, wire
from postroom.private_text import quoted
from postroom.server_codes import DUPLICATE_KEY
from postroom.store import schedule_names
from postroom.store.due_row import put_off
from postroom.store.fired import with_id
from postroom.store.schedule_names import Named
from postroom.wire import FiredField, ScheduledField

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bson.raw_bson import RawBSONDocument

    from postroom.store.partitioning_record import Commands

__all__ = ["Due", "PlanChange", "Which", "cancel", "reschedule", "schedule"]

# As MongoDB's dates go, with room for what is added to them.
LAST_YEAR = 9000
LONGEST_DELAY = timedelta(days=365_000)
MILLISECOND = timedelta(milliseconds=1)
ROWS_A_COMMAND = 1000
BYTES_A_COMMAND = 8 << 20


class PlanChange(enum.Enum):
    """What came of cancelling or rescheduling an event; true only where it was DONE.

    TOO_LATE: it was due, and is in the outbox by now. UNKNOWN: nothing waits under that name or id;
    of what was fired that is said once POSTROOM_HISTORY_MARGIN_HOURS have passed since.
    """

    DONE = "done"
    TOO_LATE = "too late"
    UNKNOWN = "unknown"

    def __bool__(self) -> bool:
        """Say whether it was done."""
        return self is PlanChange.DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """When an event is due: at a time, or so long after MongoDB has been told.

    `name` is what it can be found by while it waits, `replace` whether it takes the place of the
    one that waits under that name.
    """

    at: datetime | None = None
    delay: timedelta | None = None
    name: str | None = None
    replace: bool = False

    @classmethod
    def of(
        cls,
        deliver_at: datetime | None,
        deliver_in: timedelta | None,
        name: str | None = None,
        *,
        replace: bool = False,
    ) -> Due | None:
        """Return what publish() was given; None where the event is due at once.

        Raises:
            InvalidEvent: that is no time, or no name.

        """
        if deliver_at is None and deliver_in is None:
            if name is not None or replace:
                raise _refusal("A name goes with a time: give deliver_at or deliver_in")
            return None
        if name is None and replace:
            raise _refusal("replace takes the name of what is to be replaced: give schedule")
        at, delay = _time(deliver_at, deliver_in)
        if name is not None:
            _require_name(name)
        return cls(at=at, delay=delay, name=name, replace=replace)

    @classmethod
    def to(cls, deliver_at: datetime | None, deliver_in: timedelta | None) -> Due:
        """Return what reschedule() was given.

        Raises:
            InvalidEvent: that is no time.

        """
        found = cls.of(deliver_at, deliver_in)
        if found is None:
            raise _refusal("Give deliver_at or deliver_in")
        return found

    def fields(self) -> dict[str, Any]:
        """Return what a row has of it; a delay by this machine's clock, until MongoDB is told."""
        at = self.at if self.delay is None else datetime.now(UTC) + self.delay
        named = {} if self.name is None else {ScheduledField.SCHEDULE: self.name}
        return {ScheduledField.DUE_AT: at, **named}

    def expression(self) -> Any:
        """Return the time as MongoDB is to compute it."""
        if self.delay is None:
            return self.at
        return {"$add": ["$$NOW", self.delay // MILLISECOND]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """One event of the plan of an outbox: by its name or by its id."""

    base: str
    name: str | None = None
    row_id: ObjectId | None = None

    @classmethod
    def of(cls, base: str, name: str | None, event_id: str | None) -> Which:
        """Return what is meant by one of both.

        Raises:
            InvalidEvent: neither or both are given, or no event of the plan can be called so.

        """
        if (name is None) is (event_id is None):
            raise _refusal("Say which event is meant, by its schedule or by its event_id")
        if name is not None:
            _require_name(name)
            return cls(base=base, name=name)
        if not isinstance(event_id, str) or not ObjectId.is_valid(event_id):
            raise _refusal(f"The event_id {_shown(event_id)} is none that publish() returns")
        return cls(base=base, row_id=ObjectId(event_id))


def schedule(rows: Sequence[RawBSONDocument], base: str, due: Due) -> Commands[None]:
    """Write rows into the plan.

    Raises:
        AlreadyScheduled: an event waits under the name, and is not to be replaced.
        InvalidEvent: one name was given to several events.

    """
    if due.name is not None:
        if len(rows) != 1:
            raise _refusal(f"One name is one event's, and {len(rows)} were given")
        named = Named(base=base, name=due.name, row_id=rows[0][ScheduledField.ID])
        yield from _take_name(named, replace=due.replace)
    for some in _portions(rows):
        _require_written((yield {"insert": wire.SCHEDULED, "documents": some}))
    if due.delay is not None and rows:
        ids = {ScheduledField.ID: {"$in": [row[ScheduledField.ID] for row in rows]}}
        _require_written((yield _update(ids, due, multi=True)))


def cancel(which: Which) -> Commands[PlanChange]:
    """Delete an event that waits, and its name with it."""
    row_id = yield from _row_id(which)
    if row_id is None:
        return PlanChange.UNKNOWN
    name: Any = which.name
    if name is None:
        row = yield from _waiting(which.base, row_id)
        name = None if row is None else row.get(ScheduledField.SCHEDULE)
    reply = yield _deletion(which.base, row_id)
    _require_written(reply)
    if not reply["n"]:
        return (yield from _too_late(which.base, row_id))
    if schedule_names.is_name(name):
        named = Named(base=which.base, name=name, row_id=row_id)
        _require_written((yield schedule_names.taken(named)))
    return PlanChange.DONE


def reschedule(which: Which, due: Due) -> Commands[PlanChange]:
    """Have an event that waits be due at another time."""
    row_id = yield from _row_id(which)
    if row_id is None:
        return PlanChange.UNKNOWN
    reply = yield _update(_with_id(which.base, row_id), due)
    _require_written(reply)
    return PlanChange.DONE if reply["n"] else (yield from _too_late(which.base, row_id))


def _take_name(named: Named, *, replace: bool) -> Commands[None]:
    reply = yield schedule_names.offered(named)
    _require_written(reply, named.name)
    if "upserted" in reply:
        return
    # It was somebody's before; what waits is read, since a refusal is to leave no trace.
    before = yield from schedule_names.event_of(named.base, named.name)
    if (yield from _waiting(named.base, before)) is not None:
        if not replace:
            raise errors.AlreadyScheduled(
                f"An event waits under the name {_shown(named.name)} already; replace it with "
                "replace=True, or cancel() or reschedule() it; nothing was written"
            )
        _require_written((yield _deletion(named.base, before)))
    _require_written((yield schedule_names.given(named)))


def _row_id(which: Which) -> Commands[Any]:
    """Return the id of the event that is meant; None where its name is nobody's."""
    if which.name is None:
        return which.row_id
    return (yield from schedule_names.event_of(which.base, which.name))


def _waiting(base: str, row_id: Any) -> Commands[Mapping[str, Any] | None]:
    """Return what the plan has of an event that waits there, its name if it has one."""
    wanted = _with_id(base, row_id)
    return (yield from _first(wire.SCHEDULED, wanted, {ScheduledField.SCHEDULE: 1}))


def _too_late(base: str, row_id: Any) -> Commands[PlanChange]:
    found = yield from _first(wire.FIRED, with_id(base, row_id), {FiredField.ID: 1})
    return PlanChange.UNKNOWN if found is None else PlanChange.TOO_LATE


def _first(
    collection: str, wanted: Mapping[str, Any], shown: Mapping[str, int]
) -> Commands[Mapping[str, Any] | None]:
    reply = yield {
        "find": collection,
        "filter": wanted,
        "projection": shown,
        "limit": 1,
        "singleBatch": True,
    }
    return next(iter(reply["cursor"]["firstBatch"]), None)


def _with_id(base: str, row_id: Any) -> dict[str, Any]:
    return {ScheduledField.ID: row_id, ScheduledField.PARTITION: base}


def _deletion(base: str, row_id: Any) -> dict[str, Any]:
    return {"delete": wire.SCHEDULED, "deletes": [{"q": _with_id(base, row_id), "limit": 1}]}


def _update(query: Mapping[str, Any], due: Due, *, multi: bool = False) -> dict[str, Any]:
    change = {"q": query, "u": put_off(due.expression()), "multi": multi}
    return {"update": wire.SCHEDULED, "updates": [change]}


def _portions(rows: Sequence[RawBSONDocument]) -> Iterator[list[RawBSONDocument]]:
    portion: list[RawBSONDocument] = []
    size = 0
    for row in rows:
        if portion and (len(portion) == ROWS_A_COMMAND or size + len(row.raw) > BYTES_A_COMMAND):
            yield portion
            portion, size = [], 0
        portion.append(row)
        size += len(row.raw)
    if portion:
        yield portion


def _require_written(reply: Mapping[str, Any], name: str | None = None) -> None:
    failed = reply.get("writeErrors") or ()
    if not failed:
        return
    code = failed[0].get("code")
    if code == DUPLICATE_KEY and name is not None:
        raise errors.AlreadyScheduled(
            f"Another transaction has scheduled an event under the name {_shown(name)} meanwhile; "
            "nothing was written"
        )
    raise mongo.WriteError(f"MongoDB refused to write into {wire.SCHEDULED}", code, failed[0])


def _time(at: object, delay: object) -> tuple[datetime | None, timedelta | None]:
    """Return when it is due in whole milliseconds, as MongoDB counts: never before what is asked.

    Raises:
        InvalidEvent: that is no time.

    """
    if at is not None and delay is not None:
        raise _refusal("Give deliver_at or deliver_in, not both")
    if at is not None:
        moment = _in_utc(at)
        return moment + timedelta(microseconds=-moment.microsecond % 1000), None
    if not isinstance(delay, timedelta) or abs(delay) > LONGEST_DELAY:
        raise _refusal("deliver_in is no timedelta of at most a thousand years")
    return None, -(-delay // MILLISECOND) * MILLISECOND


def _in_utc(at: object) -> datetime:
    with contextlib.suppress(OverflowError):  # in UTC it is before the year 1 or behind 9999
        if isinstance(at, datetime) and at.utcoffset() is not None:
            moment = at.astimezone(UTC)
            if moment.year <= LAST_YEAR:
                return moment
    raise _refusal("deliver_at is no datetime with a time zone, of the years 1 to 9000 in UTC")


def _require_name(name: object) -> None:
    if not schedule_names.is_name(name):
        raise _refusal(
            f"{quoted(name, hidden='What was given')} is no name for a scheduled event: that has "
            f"1 to {schedule_names.LONGEST} characters, of UTF-8 and none of them null"
        )


def _shown(given: object) -> str:
    return quoted(given, hidden="that was given")


def _refusal(sentence: str) -> errors.InvalidEvent:
    return errors.InvalidEvent(f"{sentence}; nothing was written")
