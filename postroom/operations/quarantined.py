"""Quarantined rows: found by filter, page by page; redriven or discarded, and that is noted."""

from __future__ import annotations

import contextlib
import functools
import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

from bson import Binary, ObjectId, json_util
from pymongo import errors as mongo

from postroom import errors
from postroom.events import EXTENDED_JSON
from postroom.operations import actions
from postroom.operations.done import Done
from postroom.operations.filters import ALL, Excerpt, Filter
from postroom.pace import Pace
from postroom.store.quarantine import Quarantine
from postroom.store.quarantine_search import FoundEntry, QuarantineSearch, Wanted
from postroom.store.values import OutboxPartition
from postroom.topics import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pymongo.database import Database

    from postroom.operations.actions import Actor

__all__ = ["count", "discard", "forms_of", "ids_of", "page", "redrive", "searchable"]

REFUSED_EXPRESSION = {51091, 51111, 2}


def ids_of(text: str) -> list[Any]:
    """Return the ids of rows that this may be the text of: rows of other programs have any kind."""
    found: list[Any] = [text]
    if text.startswith(("{", '"')):
        # As events.id_text() writes what is neither an ObjectId nor a string like any other.
        with contextlib.suppress(Exception):
            found.append(json_util.loads(text, json_options=EXTENDED_JSON))
    if ObjectId.is_valid(text):
        found.append(ObjectId(text))
    if re.fullmatch(r"-?\d{1,18}", text):
        found.append(int(text))
    with contextlib.suppress(ValueError):
        found.append(Binary.from_uuid(UUID(text)))
    return found


def page(
    database: Database[Any],
    where: Filter = ALL,
    *,
    partition: str | None = None,
    key_field: str | None = None,
    skip: int = 0,
    limit: int = 100,
) -> Excerpt[FoundEntry]:
    """Return the quarantined rows that match, oldest first, and how many there are; by MongoDB.

    Of all outbox partitions unless one is named. `key_field` is what `install(key=…)` says, where
    that is a field of the data.

    Raises:
        ConfigurationError: MongoDB cannot search for the reason's expression.
        pymongo.errors.PyMongoError: it does not answer.

    """
    if where.handler is not None:
        return Excerpt(items=[], skipped=skip, matching=0)  # no handler has ever seen such a row
    search, wanted = _search(database, partition), _wanted(where, key_field)
    with _sentence(where):
        return Excerpt(
            items=search.some(wanted, skip=skip, limit=limit),
            skipped=skip,
            matching=search.count(wanted),
        )


def count(
    database: Database[Any],
    where: Filter = ALL,
    *,
    partition: str | None = None,
    key_field: str | None = None,
) -> int:
    """Return how many match.

    Raises:
        ConfigurationError: MongoDB cannot search for the reason's expression.
        pymongo.errors.PyMongoError: it does not answer.

    """
    if where.handler is not None:
        return 0
    with _sentence(where):
        return _search(database, partition).count(_wanted(where, key_field))


def redrive(
    database: Database[Any],
    where: Filter,
    *,
    actor: Actor,
    partition: str | None = None,
    key_field: str | None = None,
    rate_per_second: float | None = None,
    told: Callable[[Done], None] = lambda _: None,
) -> Done:
    """Have the rows that match now relayed as they are, behind all that is in the outbox.

    One after the other, each by itself: an interruption leaves the others where they are. What
    waits for its topic is left, since it goes there by itself; so is what is gone from the outbox,
    or was redriven by somebody else meanwhile.

    Raises:
        ConfigurationError: MongoDB cannot search for the reason's expression.
        pymongo.errors.PyMongoError: it does not answer.

    """
    chosen, pace = _chosen(database, where, partition, key_field), Pace(rate_per_second)
    target = _target(partition)
    with actions.noted(database, actor, "quarantine redrive", target=target, where=where) as note:
        done = Done(asked=len(chosen))
        for of_partition, row_id in chosen:
            pace.wait(meanwhile=functools.partial(told, done))
            quarantine = Quarantine(database, partition=OutboxPartition(of_partition))
            again = quarantine.retry(row_id)
            done = done.and_more(done=again, left=not again)
            note.count = done.done
            told(done)
    return done


def discard(
    database: Database[Any],
    where: Filter,
    *,
    actor: Actor,
    partition: str | None = None,
    key_field: str | None = None,
    rate_per_second: float | None = None,
    told: Callable[[Done], None] = lambda _: None,
) -> Done:
    """Forget the rows that match now: they are not sent, and pruned like those that were.

    Raises:
        ConfigurationError: MongoDB cannot search for the reason's expression.
        pymongo.errors.PyMongoError: it does not answer.

    """
    chosen, pace = _chosen(database, where, partition, key_field), Pace(rate_per_second)
    target = _target(partition)
    with actions.noted(database, actor, "quarantine discard", target=target, where=where) as note:
        done = Done(asked=len(chosen))
        for of_partition, ids in _batches(chosen, pace.at_once):
            pace.wait(len(ids), meanwhile=functools.partial(told, done))
            quarantine = Quarantine(database, partition=OutboxPartition(of_partition))
            gone = quarantine.discard(ids)
            done = done.and_more(done=gone, left=len(ids) - gone)
            note.count = done.done
            told(done)
    return done


def _chosen(
    database: Database[Any], where: Filter, partition: str | None, key_field: str | None
) -> list[tuple[str, Any]]:
    if where.handler is not None:
        return []
    with _sentence(where):
        return _search(database, partition).ids(_wanted(where, key_field))


def _batches(chosen: Sequence[tuple[str, Any]], size: int) -> Iterator[tuple[str, list[Any]]]:
    of_partition: dict[str, list[Any]] = {}
    for partition, row_id in chosen:
        of_partition.setdefault(partition, []).append(row_id)
    for partition, ids in of_partition.items():
        for first in range(0, len(ids), size):
            yield partition, ids[first : first + size]


def _search(database: Database[Any], partition: str | None) -> QuarantineSearch:
    named = None if partition is None else OutboxPartition(partition)
    return QuarantineSearch(database, partition=named)


def _target(partition: str | None) -> str:
    return "all outbox partitions" if partition is None else f"outbox partition {partition}"


def _wanted(where: Filter, key_field: str | None) -> Wanted:
    reasons = [] if where.reason is None else [where.reason]
    if where.kind is not None:
        reasons.append(re.compile("^" + re.escape(where.kind)))
    return Wanted(
        ids=[each for text in where.ids for each in ids_of(text)],
        reasons=reasons,
        topic=None if where.topic is None else canonical(where.topic),
        since=where.since,
        until=where.until,
        name=where.name,
        keys=[] if where.key is None else forms_of(where.key),
        key_field=searchable(key_field),
    )


def searchable(key_field: str | None) -> str | None:
    """Return the field of the data by which keys are made, where MongoDB can be asked for it."""
    return key_field if key_field and not set(key_field) & set(".$\0") else None


def forms_of(key: str) -> list[Any]:
    """Return what a row may have as a key that is sent as this text."""
    found = ids_of(key)
    found += {"true": [True], "false": [False]}.get(key, [])
    with contextlib.suppress(ValueError, OverflowError):
        found.append(float(key))
    return found


@contextlib.contextmanager
def _sentence(where: Filter) -> Iterator[None]:
    try:
        yield
    except mongo.OperationFailure as error:
        if error.code not in REFUSED_EXPRESSION or where.reason is None:
            raise
        raise errors.ConfigurationError(
            f"MongoDB cannot search for {where.reason.pattern!r}: it means nothing to it"
        ) from None
