"""Indexes of the plan and what belongs to it: what is due, and was fired, is found by them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING, IndexModel
from pymongo import errors as mongo

from postroom import wire
from postroom.server_codes import TIME_EXPIRED, UNAUTHORIZED
from postroom.wire import FiredField, ScheduledField, ScheduleNameField

if TYPE_CHECKING:
    from pymongo.database import Database

    from postroom.store.partitioning_record import Commands

__all__ = ["commands", "prepare", "prepare_fired", "prepare_if_allowed", "prepare_plan"]

logger = logging.getLogger(__name__)


def _ascending(fields: tuple[str, ...]) -> list[tuple[str, int]]:
    return [(field, ASCENDING) for field in fields]


DUE = (ScheduledField.PARTITION, ScheduledField.DUE_AT, ScheduledField.ID, ScheduledField.SLOT)
# Of a writer, which may be within a transaction that touches the plan.
MOST_MS = 10_000
INTO = (FiredField.INTO, FiredField.AT)

# A row that is moved pays for each index of the plan, also for one that it does not stand in: in a
# transaction MongoDB 6 reads its catalogue for each, twice for a unique one. Deleting a row took it
# 13 us with this one alone, and 24 us with those that find names and what was fired beside it.
PLAN = [IndexModel(_ascending(DUE), name=wire.SCHEDULED_DUE_INDEX)]
# A name is unique by its id: this makes the collection, for which no writer needs another right.
NAMES = [IndexModel(_ascending((ScheduleNameField.ID,)), name="_id_")]
FIRED = [
    IndexModel(_ascending(INTO), name=wire.FIRED_INDEX),
    IndexModel(_ascending((FiredField.IDS,)), name=wire.FIRED_IDS_INDEX),
]


def commands() -> Commands[None]:
    """Make the indexes for a writer, unless they are there.

    One that may not, or has no time for all that is there, is none that fails: relays, `outbox
    setup` and others make them.
    """
    for collection, models in ((wire.SCHEDULED, PLAN), (wire.SCHEDULE_NAMES, NAMES)):
        try:
            yield {
                "createIndexes": collection,
                "indexes": [model.document for model in models],
                "maxTimeMS": MOST_MS,
            }
        except mongo.OperationFailure as error:
            if error.code not in {UNAUTHORIZED, TIME_EXPIRED}:
                raise


def prepare(database: Database[Any]) -> None:
    """Make the collections and their indexes, unless they are there.

    Raises:
        pymongo.errors.PyMongoError: they could not be made.

    """
    prepare_plan(database)
    prepare_fired(database)
    database[wire.SCHEDULE_NAMES].create_indexes(NAMES)


def prepare_plan(database: Database[Any]) -> None:
    """Make that by which due events are found, unless it is there.

    Raises:
        pymongo.errors.PyMongoError: it could not be made.

    """
    database[wire.SCHEDULED].create_indexes(PLAN)


def prepare_fired(database: Database[Any]) -> None:
    """Make those by which it is found what was fired, unless they are there.

    Raises:
        pymongo.errors.PyMongoError: they could not be made.

    """
    database[wire.FIRED].create_indexes(FIRED)


def prepare_if_allowed(database: Database[Any]) -> None:
    """Make those that a relay goes by, or say what is missing where MongoDB refuses that.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    try:
        prepare_plan(database)
        prepare_fired(database)
    except mongo.OperationFailure as error:
        logger.warning(
            "The indexes of %s and %s may be missing, and MongoDB refuses to make them (code %s; "
            "it is 13 where the right createIndex is lacking): finding what is due, and what was "
            "fired, takes ever longer. Run `outbox setup` as a user who may",
            wire.SCHEDULED,
            wire.FIRED,
            error.code,
            extra={"action": "plan_indexes"},
        )
