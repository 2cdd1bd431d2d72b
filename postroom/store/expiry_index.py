"""The expiry index: by which MongoDB removes rows that are of no more use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING
from pymongo import errors as mongo

from postroom.server_codes import INDEX_OPTIONS_CONFLICT

if TYPE_CHECKING:
    from pymongo.collection import Collection

__all__ = ["prepare"]


def prepare(rows: Collection[Any], field: str, *, name: str, seconds: int) -> None:
    """Make the index by which rows expire so long after a field, or change its time.

    One of the same field that was made beforehand serves as well, whatever its name.

    Raises:
        pymongo.errors.PyMongoError: it could not be made.

    """
    try:
        rows.create_index([(field, ASCENDING)], name=name, expireAfterSeconds=seconds)
    except mongo.OperationFailure as error:
        if error.code != INDEX_OPTIONS_CONFLICT:
            raise
        index = {"keyPattern": {field: ASCENDING}, "expireAfterSeconds": seconds}
        rows.database.command("collMod", rows.name, index=index)
