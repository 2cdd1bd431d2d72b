"""Scheduled events: found by filter, page by page; cancelled, moved or fired, and that is noted."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from postroom.operations import actions
from postroom.operations.done import Done
from postroom.operations.filters import ALL, Excerpt, Filter
from postroom.operations.quarantined import forms_of, ids_of, searchable
from postroom.pace import Pace
from postroom.store.scheduled_search import Scheduled, ScheduledSearch
from postroom.wire import OutboxField, ScheduledField

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from pymongo.database import Database

    from postroom.operations.actions import Actor, Noted

__all__ = ["cancel", "count", "one", "page", "reschedule"]


def page(
    database: Database[Any],
    where: Filter = ALL,
    *,
    outbox: str | None = None,
    schedule: str | None = None,
    key_field: str | None = None,
    skip: int = 0,
    limit: int = 100,
) -> Excerpt[Scheduled]:
    """Return the events that wait and match, in the order in which they are due.

    `since` and `until` of the filter bound when that is, `reason` why they cannot go into
    the outbox. Of all outboxes unless one is named.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    search, wanted = ScheduledSearch(database, base=outbox), _wanted(where, schedule, key_field)
    return Excerpt(
        items=search.some(wanted, skip=skip, limit=limit),
        skipped=skip,
        matching=search.count(wanted),
    )


def count(
    database: Database[Any],
    where: Filter,
    *,
    outbox: str | None = None,
    schedule: str | None = None,
    key_field: str | None = None,
) -> int:
    """Return how many match.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    wanted = _wanted(where, schedule, key_field)
    return ScheduledSearch(database, base=outbox).count(wanted)


def one(database: Database[Any], event_id: str) -> Scheduled | None:
    """Return the event with this id, as it waits or once it was fired; None of any other.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    return ScheduledSearch(database).one(ids_of(event_id))


def cancel(
    database: Database[Any],
    where: Filter,
    *,
    actor: Actor,
    outbox: str | None = None,
    schedule: str | None = None,
    key_field: str | None = None,
    rate_per_second: float | None = None,
    told: Callable[[Done], None] = lambda _: None,
) -> Done:
    """Cancel the events that match now; those that are fired meanwhile are left.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    search = ScheduledSearch(database, base=outbox)
    ids = search.ids(_wanted(where, schedule, key_field))
    target = _target(outbox, schedule)
    with actions.noted(database, actor, "scheduled cancel", target=target, where=where) as note:
        return _in_portions(ids, search.cancel, note, told, pace=Pace(rate_per_second))


def reschedule(
    database: Database[Any],
    where: Filter,
    *,
    actor: Actor,
    at: datetime | timedelta | None,
    outbox: str | None = None,
    schedule: str | None = None,
    key_field: str | None = None,
    rate_per_second: float | None = None,
    told: Callable[[Done], None] = lambda _: None,
) -> Done:
    """Have the events that match now be due at a time, or so long from now; at once for None.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    search = ScheduledSearch(database, base=outbox)
    ids = search.ids(_wanted(where, schedule, key_field))
    what = "scheduled fire" if at is None else "scheduled reschedule"
    target = _target(outbox, schedule)
    with actions.noted(database, actor, what, target=target, where=where) as note:
        return _in_portions(
            ids,
            lambda some: search.reschedule(some, at),
            note,
            told,
            pace=Pace(rate_per_second),
        )


def _in_portions(
    ids: Sequence[Any],
    act: Callable[[Sequence[Any]], int],
    note: Noted,
    told: Callable[[Done], None],
    *,
    pace: Pace,
) -> Done:
    """Act on so many at a time, and tell how far that is; `act` returns how many were there."""
    done = Done(asked=len(ids))
    for first in range(0, len(ids), pace.at_once):
        some = ids[first : first + pace.at_once]
        pace.wait(len(some), meanwhile=functools.partial(told, done))
        count = act(some)
        done = done.and_more(done=count, left=len(some) - count)
        note.count = done.done
        told(done)
    return done


def _target(outbox: str | None, schedule: str | None) -> str:
    of = "all outboxes" if outbox is None else f"outbox {outbox}"
    return of if schedule is None else f"{of}, schedule {schedule}"


def _wanted(where: Filter, schedule: str | None, key_field: str | None) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if schedule is not None:
        wanted[ScheduledField.SCHEDULE] = schedule
    if where.ids:
        wanted[ScheduledField.ID] = {"$in": [each for text in where.ids for each in ids_of(text)]}
    if where.name is not None:
        wanted[f"{OutboxField.DATA}.name"] = where.name
    bounds = {"$gte": where.since, "$lt": where.until}
    if given := {how: at for how, at in bounds.items() if at is not None}:
        wanted[ScheduledField.DUE_AT] = given
    if where.reason is not None:
        wanted[ScheduledField.REFUSED] = where.reason
    if where.handler is not None or where.topic is not None or where.kind is not None:
        # No handler has seen it, no topic is known yet, and MongoDB's reasons have no kinds.
        wanted[ScheduledField.ID] = {"$in": []}
    if where.key is not None:
        forms = {"$in": forms_of(where.key)}
        by_key: list[dict[str, Any]] = [{OutboxField.KEY: forms}]
        if field := searchable(key_field):
            by_key.append({OutboxField.KEY: None, f"{OutboxField.DATA}.data.{field}": forms})
        wanted["$or"] = by_key
    return wanted
