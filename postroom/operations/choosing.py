"""Choosing: which outbox partition an operator means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

from postroom import errors
from postroom.operations.dividing import divided
from postroom.partitioning import OutboxPartition, Partitioning
from postroom.server_codes import UNAUTHORIZED
from postroom.store.checkpoints import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymongo.database import Database

    from postroom.settings import Settings

__all__ = ["chosen", "unknown"]

MOST_NAMES = 20


def chosen(database: Database[Any], settings: Settings, given: str | None) -> str:
    """Return the outbox partition that is meant: the one that is `given`, or the only one there is.

    Raises:
        ConfigurationError: none is given, and the outbox has several; or no relay was ever started
            for the one that is given.
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    current = _current(database, settings.partition)
    if given is None:
        if current.is_divided:
            raise errors.ConfigurationError(
                f"The outbox {current.base!r} has {current.count} outbox partitions: say by "
                f"--partition which one is meant; nothing was done. There are: "
                f"{_listed(current.names)}"
            )
        return current.names[0]
    if given not in current.names and Checkpoints(database).of(OutboxPartition(given)) is None:
        raise unknown(database, given)
    return given


def unknown(database: Database[Any], given: str) -> errors.ConfigurationError:
    """Return the error that says for which outbox partitions a relay was ever started.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    known = [each.partition for each in Checkpoints(database).all()]
    return errors.ConfigurationError(
        f"No relay was ever started for an outbox partition {given!r}; nothing was done. "
        f"There are: {_listed(known)}"
    )


def _current(database: Database[Any], base: str) -> Partitioning:
    try:
        return divided(database, base).partitioning
    except mongo.OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
    # Whoever looks may not know, and an outbox of one has no record.
    return Partitioning(base=base)


def _listed(names: Sequence[str]) -> str:
    more = ", …" if len(names) > MOST_NAMES else ""
    return (", ".join(names[:MOST_NAMES]) or "none") + more
