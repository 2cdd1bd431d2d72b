"""The quarantine's index: what waits for a topic is found by it among millions of other rows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING
from pymongo import errors as mongo

from postroom import wire
from postroom.server_codes import UNAUTHORIZED
from postroom.wire import QuarantineField

if TYPE_CHECKING:
    from pymongo.database import Database

__all__ = ["prepare", "prepare_if_allowed"]

logger = logging.getLogger(__name__)

FIELDS = (
    QuarantineField.PARTITION,
    QuarantineField.RETRIED_AT,
    QuarantineField.TOPIC,
    QuarantineField.POSITION,
)


def prepare(database: Database[Any]) -> None:
    """Make the index, unless it is there.

    Raises:
        pymongo.errors.PyMongoError: it could not be made.

    """
    index = [(name, ASCENDING) for name in FIELDS]
    database[wire.QUARANTINE].create_index(index, name=wire.QUARANTINE_INDEX)


def prepare_if_allowed(database: Database[Any]) -> None:
    """Make the index, or say by which command it is made where MongoDB refuses that.

    Nothing needs it but speed: an index of that name with other fields, too many of them, or a
    right that is lacking keep nobody from relaying.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    try:
        prepare(database)
    except mongo.OperationFailure as error:
        why = (
            "the user of POSTROOM_MONGODB_URI may not make it (createIndex)"
            if error.code == UNAUTHORIZED
            else f"MongoDB refuses to make it (code {error.code})"
        )
        fields = ", ".join(f"{name}: 1" for name in FIELDS)
        logger.warning(
            "The index %s of %s may be missing, and %s: once many rows are set aside, finding them "
            'takes ever longer. In mongosh: db.getCollection("%s").createIndex({%s}, {name: "%s"})',
            wire.QUARANTINE_INDEX,
            wire.QUARANTINE,
            why,
            wire.QUARANTINE,
            fields,
            wire.QUARANTINE_INDEX,
            extra={"action": "quarantine_index"},
        )
