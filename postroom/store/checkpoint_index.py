"""The index by which an outbox partition has one checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING, WriteConcern
from pymongo import errors as mongo

from postroom import errors, wire
from postroom.server_codes import INDEX_KEY_SPECS_CONFLICT, INDEX_OPTIONS_CONFLICT
from postroom.wire import CheckpointField

if TYPE_CHECKING:
    from pymongo.collection import Collection
    from pymongo.database import Database

__all__ = ["prepare"]

FIELDS = [(CheckpointField.PARTITION, ASCENDING)]
WRITE_MS = 10_000
IN_THE_WAY = frozenset({INDEX_OPTIONS_CONFLICT, INDEX_KEY_SPECS_CONFLICT})


def prepare(database: Database[Any]) -> None:
    """Make the index, unless another one does the same.

    Raises:
        ServiceUnavailable: one of its name that does not is in its way.

    """
    majority = WriteConcern(w="majority", wtimeout=WRITE_MS)
    rows = database[wire.CHECKPOINTS].with_options(write_concern=majority)
    try:
        rows.create_index(FIELDS, name=wire.CHECKPOINT_INDEX, unique=True)
    except mongo.OperationFailure as error:
        if error.code not in IN_THE_WAY:
            raise
        _require_unique(rows)


def _require_unique(rows: Collection[Any]) -> None:
    for options in rows.index_information().values():
        if [*options["key"]] == FIELDS and options.get("unique"):
            return
    raise errors.ServiceUnavailable(
        f"The index {wire.CHECKPOINT_INDEX} of {wire.CHECKPOINTS} is not the one by which an "
        "outbox partition has one checkpoint. It is looked at again; in mongosh: "
        f'db.getCollection("{wire.CHECKPOINTS}").dropIndex("{wire.CHECKPOINT_INDEX}")'
    )
