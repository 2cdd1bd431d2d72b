"""The plan's indexes: by them due events are found among millions, and names are unique."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING, IndexModel
from pymongo import errors as mongo

from postroom import wire
from postroom.server_codes import TIME_EXPIRED, UNAUTHORIZED
from postroom.wire import ScheduledField

if TYPE_CHECKING:
    from pymongo.database import Database

    from postroom.store.partitioning_record import Commands

__all__ = ["commands", "missing", "prepare", "prepare_if_allowed"]

logger = logging.getLogger(__name__)

DUE = (ScheduledField.PARTITION, ScheduledField.DUE_AT, ScheduledField.ID, ScheduledField.SLOT)
# Of a writer, which may be within a transaction that touches the plan.
MOST_MS = 10_000
NAME = (ScheduledField.PARTITION, ScheduledField.SCHEDULE, ScheduledField.FIRED_ID)
FIRED = (ScheduledField.FIRED_INTO, ScheduledField.FIRED_AT)


# A row that is moved pays for each of these, also where it stands in none but the first: MongoDB 6
# takes 13 us to delete it with that one alone and 24 us with all. In a transaction it reads its
# catalogue twice a row for each unique index, and parses all of what it says of the collection.
def _models() -> list[IndexModel]:
    named = {ScheduledField.SCHEDULE: {"$exists": True}}
    fired = {ScheduledField.FIRED_AT: {"$exists": True}}
    together = {ScheduledField.FIRED_IDS: {"$exists": True}}
    return [
        IndexModel(_ascending(DUE), name=wire.SCHEDULED_DUE_INDEX),
        IndexModel(
            _ascending(NAME),
            name=wire.SCHEDULED_NAME_INDEX,
            unique=True,
            partialFilterExpression=named,
        ),
        IndexModel(
            _ascending(FIRED), name=wire.SCHEDULED_FIRED_INDEX, partialFilterExpression=fired
        ),
        IndexModel(
            _ascending((ScheduledField.FIRED_IDS,)),
            name=wire.SCHEDULED_FIRED_IDS_INDEX,
            partialFilterExpression=together,
        ),
    ]


def commands() -> Commands[None]:
    """Make the indexes for a writer, unless they are there.

    One that may not, or has no time for all that is there, is none that fails: relays, `outbox
    setup` and others make them.
    """
    try:
        yield {
            "createIndexes": wire.SCHEDULED,
            "indexes": [model.document for model in _models()],
            "maxTimeMS": MOST_MS,
        }
    except mongo.OperationFailure as error:
        if error.code not in {UNAUTHORIZED, TIME_EXPIRED}:
            raise


def prepare(database: Database[Any]) -> None:
    """Make the indexes, unless they are there.

    Raises:
        pymongo.errors.PyMongoError: they could not be made.

    """
    database[wire.SCHEDULED].create_indexes(_models())


def prepare_if_allowed(database: Database[Any]) -> None:
    """Make the indexes, or say what is missing where MongoDB refuses that.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    try:
        prepare(database)
    except mongo.OperationFailure as error:
        logger.warning(
            "The indexes of %s may be missing, and MongoDB refuses to make them (code %s; it is 13 "
            "where the right createIndex is lacking): a name may be given twice, and finding what "
            "is due takes ever longer. Run `outbox setup` as a user who may",
            wire.SCHEDULED,
            error.code,
            extra={"action": "plan_indexes"},
        )


def missing(database: Database[Any]) -> list[str]:
    """Return the names of those that are not there.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    there = database[wire.SCHEDULED].index_information()
    return [name for model in _models() if (name := model.document["name"]) not in there]


def _ascending(fields: tuple[str, ...]) -> list[tuple[str, int]]:
    return [(field, ASCENDING) for field in fields]
