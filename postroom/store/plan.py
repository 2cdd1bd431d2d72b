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
from postroom.store.due_row import put_off
from postroom.store.fired import with_id
from postroom.wire import ScheduledField

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bson.raw_bson import RawBSONDocument

    from postroom.store.partitioning_record import Commands

__all__ = ["Due", "PlanChange", "Which", "cancel", "reschedule", "schedule"]

LONGEST_NAME = 256
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
    condition: tuple[str, Any]

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
            return cls(base=base, condition=(ScheduledField.SCHEDULE, name))
        if not isinstance(event_id, str) or not ObjectId.is_valid(event_id):
            raise _refusal(f"The event_id {_shown(event_id)} is none that publish() returns")
        return cls(base=base, condition=(ScheduledField.ID, ObjectId(event_id)))

    def query(self, *, fired: bool) -> dict[str, Any]:
        """Return the condition for it, as it waits or once it was fired."""
        field, value = self.condition
        mine = {ScheduledField.PARTITION: self.base}
        if not fired:
            return {**mine, field: value, ScheduledField.FIRED_ID: None}
        if field == ScheduledField.ID:
            return {"$or": [{**mine, **each} for each in with_id(value)]}
        return {**mine, field: value, ScheduledField.FIRED_ID: {"$ne": None}}


def schedule(rows: Sequence[RawBSONDocument], base: str, due: Due) -> Commands[None]:
    """Write rows into the plan.

    Raises:
        AlreadyScheduled: an event waits under the name, and is not to be replaced.
        InvalidEvent: one name was given to several events.

    """
    if due.name is not None:
        if len(rows) != 1:
            raise _refusal(f"One name is one event's, and {len(rows)} were given")
        yield from _make_room(Which.of(base, due.name, None), replace=due.replace)
    for some in _portions(rows):
        _require_written(due.name, (yield {"insert": wire.SCHEDULED, "documents": some}))
    if due.delay is not None and rows:
        ids = {ScheduledField.ID: {"$in": [row[ScheduledField.ID] for row in rows]}}
        _require_written(None, (yield _update(ids, due, multi=True)))


def cancel(which: Which) -> Commands[PlanChange]:
    """Delete an event that waits."""
    found = {"q": which.query(fired=False), "limit": 1}
    reply = yield {"delete": wire.SCHEDULED, "deletes": [found]}
    return (yield from _verdict(which, reply))


def reschedule(which: Which, due: Due) -> Commands[PlanChange]:
    """Have an event that waits be due at another time."""
    reply = yield _update(which.query(fired=False), due)
    return (yield from _verdict(which, reply))


def _make_room(which: Which, *, replace: bool) -> Commands[None]:
    # Looked up first: what a unique index refuses ends the whole transaction.
    if not (yield from _is_there(which, fired=False)):
        return
    if not replace:
        raise errors.AlreadyScheduled(
            f"An event waits under the name {_shown(which.condition[1])} already; replace it with "
            "replace=True, or cancel() or reschedule() it; nothing was written"
        )
    yield {"delete": wire.SCHEDULED, "deletes": [{"q": which.query(fired=False), "limit": 1}]}


def _verdict(which: Which, reply: Mapping[str, Any]) -> Commands[PlanChange]:
    _require_written(None, reply)
    if reply["n"]:
        return PlanChange.DONE
    late = yield from _is_there(which, fired=True)
    return PlanChange.TOO_LATE if late else PlanChange.UNKNOWN


def _is_there(which: Which, *, fired: bool) -> Commands[bool]:
    reply = yield {
        "find": wire.SCHEDULED,
        "filter": which.query(fired=fired),
        "projection": {ScheduledField.ID: 1},
        "limit": 1,
        "singleBatch": True,
    }
    return bool(reply["cursor"]["firstBatch"])


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


def _require_written(name: str | None, reply: Mapping[str, Any]) -> None:
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
    fits = isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and "\0" not in name
    if fits and isinstance(name, str):
        try:
            name.encode()
        except UnicodeEncodeError:
            fits = False
    if not fits:
        raise _refusal(
            f"{quoted(name, hidden='What was given')} is no name for a scheduled event: that has "
            f"1 to {LONGEST_NAME} characters, of UTF-8 and none of them null"
        )


def _shown(given: object) -> str:
    return quoted(given, hidden="that was given")


def _refusal(sentence: str) -> errors.InvalidEvent:
    return errors.InvalidEvent(f"{sentence}; nothing was written")
