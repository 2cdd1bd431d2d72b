"""Pausing: an outbox partition's relay stands still, without losing its place, until resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom.operations import actions
from postroom.operations.choosing import unknown
from postroom.store.pauses import Pauses
from postroom.store.values import OutboxPartition

if TYPE_CHECKING:
    from pymongo.database import Database

    from postroom.operations.actions import Actor

__all__ = ["pause", "resume"]


def pause(database: Database[Any], partition: str, *, actor: Actor) -> bool:
    """Have the relay of an outbox partition send nothing more; return False where it did not.

    Whichever relay has it drains what is under way, writes its checkpoint and stands still within a
    second or two; the next one does too, for as long as it is not resumed. Rows wait in the outbox
    meanwhile, and none is pruned. Where that is longer than MongoDB's oplog reaches, the relay
    goes on by scanning the collection.

    Raises:
        ConfigurationError: no relay was ever started for such an outbox partition.
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    with actions.noted(database, actor, "pause", target=f"outbox partition {partition}") as note:
        begun = Pauses(database).begin(OutboxPartition(partition), by=actor.who)
        note.count = int(_known(database, partition, changed=begun))
        note.result = "done" if begun else "it was paused already"
    return bool(begun)


def resume(database: Database[Any], partition: str, *, actor: Actor) -> bool:
    """Have it relayed again, from where it stood still; return False where it was not paused.

    Raises:
        ConfigurationError: no relay was ever started for such an outbox partition.
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    with actions.noted(database, actor, "resume", target=f"outbox partition {partition}") as note:
        ended = Pauses(database).end(OutboxPartition(partition))
        note.count = int(_known(database, partition, changed=ended))
        note.result = "done" if ended else "it was not paused"
    return bool(ended)


def _known(database: Database[Any], partition: str, *, changed: bool | None) -> bool:
    if changed is None:
        raise unknown(database, partition)
    return changed
