"""Pruning: old rows that were relayed are deleted now, by the relay's own rules."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from postroom import errors
from postroom.operations import actions
from postroom.relay.saving.retention import Retention
from postroom.store.quarantine import Quarantine
from postroom.store.values import OutboxPartition

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.database import Database

    from postroom.operations.actions import Actor
    from postroom.settings import Settings

__all__ = ["count", "prune"]


def count(
    database: Database[Any], settings: Settings, *, partition: str, age: timedelta | None = None
) -> int:
    """Return how many rows prune() would delete now; changes nothing.

    Raises:
        ConfigurationError: no age is given, and POSTROOM_RETENTION_DAYS keeps rows for ever.
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    return _retention(database, settings, partition, age, lambda _: None).count()


def prune(
    database: Database[Any],
    settings: Settings,
    *,
    actor: Actor,
    partition: str,
    age: timedelta | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> int:
    """Delete rows that are older than an age, POSTROOM_RETENTION_DAYS unless given.

    Only those that were relayed, as the relay itself does beside its work: none that is unsent or
    in quarantine. `told` hears how many went at once. Returns how many were deleted.

    Raises:
        ConfigurationError: no age is given, and POSTROOM_RETENTION_DAYS keeps rows for ever.
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    with actions.noted(database, actor, "prune", target=f"outbox partition {partition}") as note:

        def hear(rows: int) -> None:
            note.count += rows
            told(rows)

        return _retention(database, settings, partition, age, hear).prune()


def _retention(
    database: Database[Any],
    settings: Settings,
    partition: str,
    age: timedelta | None,
    pruned: Callable[[int], None],
) -> Retention:
    age = settings.retention if age is None else age
    if age is None:
        raise errors.ConfigurationError(
            "POSTROOM_RETENTION_DAYS is 0, so that rows are kept for ever; say --days to prune all "
            "the same. Nothing was deleted"
        )
    named = OutboxPartition(partition)
    return Retention(
        database,
        Quarantine(database, partition=named),
        partition=named,
        age=age,
        margin=timedelta(hours=settings.history_margin_hours),
        pruned=pruned,
    )
