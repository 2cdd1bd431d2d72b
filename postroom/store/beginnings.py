"""Beginnings: where in the change stream the first relay of an outbox partition begins."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo import WriteConcern
from pymongo import errors as mongo

from postroom import wire
from postroom.store.holdings import new_row
from postroom.wire import CheckpointField

if TYPE_CHECKING:
    from pymongo.database import Database

    from postroom.store.values import OutboxPartition, ResumeToken

__all__ = ["begin_at"]

WRITE_MS = 10_000


def begin_at(database: Database[Any], partition: OutboxPartition, token: ResumeToken) -> None:
    """Have the first relay of an outbox partition go on behind a token, by a checkpoint of no one.

    All of its rows have to be committed later: the relay does not look into the collection, whose
    order is that of ids and not of commits. Where there was a relay, or one is to begin at a token
    already, nothing is changed: rows may be there since.
    """
    rows = database[wire.CHECKPOINTS].with_options(
        write_concern=WriteConcern(w="majority", wtimeout=WRITE_MS)
    )
    rows.create_index([(CheckpointField.PARTITION, 1)], name=wire.CHECKPOINT_INDEX, unique=True)
    made = new_row(datetime.now(UTC))
    begins = {
        CheckpointField.RESUME_TOKEN: dict(token.document),
        CheckpointField.CLUSTER_TIME: token.cluster_time,
    }
    try:
        rows.update_one(
            {
                CheckpointField.PARTITION: partition,
                CheckpointField.OWNER: None,
                CheckpointField.RESUME_TOKEN: None,
            },
            {
                "$set": begins,
                "$setOnInsert": {name: made[name] for name in made.keys() - begins.keys()},
            },
            upsert=True,
        )
    except mongo.DuplicateKeyError:
        return
