"""Exchange: whether the server's stream is the one that the checkpoint was written of."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

from postroom import errors
from postroom.relay.reading.stream import has_passed
from postroom.store.oplog import first_entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bson import Timestamp
    from pymongo.database import Database

    from postroom.relay.reading.batch import Batch
    from postroom.relay.reading.stream import Reply
    from postroom.store.oplog import FirstEntry
    from postroom.store.values import ResumeToken

__all__ = ["applied_time", "looked_through", "proven"]

logger = logging.getLogger(__name__)

# Nobody restores a backup faster than that: relays that begin sooner have nothing to ask.
QUICK_SECONDS = 600


def applied_time(database: Database[Any]) -> Timestamp:
    """Return the time of the newest write that the server has, whether a majority has it or not.

    Whatever an earlier read showed was there by then.
    """
    found: Timestamp = database.command("ping")["operationTime"]
    return found


def proven(
    batches: Iterator[Batch], *, database: Database[Any], token: ResumeToken
) -> Iterator[Batch]:
    """Yield batches that begin behind a saved token, if this server can have all behind it.

    An oplog that has rolled over gives an error by itself, if later. One that begins with the
    initiation of its replica set takes any token of a quiet moment, older ones too: what was
    committed before, on the server that the backup is of, is in the collection and never in the
    stream.

    Raises:
        HistoryLost: the oplog is younger than the token.

    """
    reached = token.cluster_time
    if reached is not None and reached.time:
        first = _first(database, reached)
        if first is not None and first.time > reached:
            raise errors.HistoryLost(
                f"MongoDB's oplog begins at {_said(first.time)} UTC and the checkpoint is of "
                f"{_said(reached)}: {_why_younger(first)}. A new term sends what the collection "
                "holds and the topics lack"
            )
    yield from batches


def _why_younger(first: FirstEntry) -> str:
    if first.is_initiation:
        return "the replica set was set up anew since, from a backup"
    # That of a member that copied the data of another one begins with the copying.
    return (
        "it has rolled over since, for which it has to be larger, or the primary is a member that "
        "was added since"
    )


def _first(database: Database[Any], reached: Timestamp) -> FirstEntry | None:
    """Return the oplog's oldest entry, None where it cannot be told."""
    try:
        return first_entry(database.client)
    except mongo.OperationFailure as error:
        if applied_time(database).time - reached.time > QUICK_SECONDS:
            logger.warning(
                "The checkpoint is of %s UTC, and whether MongoDB was set up anew from a backup "
                "since cannot be told: its oplog could not be read (error %s). If it was, what had "
                "not been sent may stay unsent, unless the relay is made to go through the "
                "collection (docs/continuity.md). With the right to find in local.oplog.rs it sees "
                "that by itself",
                _said(reached),
                error.code,
                extra={"action": "oplog_unread"},
            )
        return None


def looked_through(replies: Iterable[Reply], *, until: Timestamp) -> Iterator[None]:
    """Make sure that the stream tells of an exchange by a cluster time; nothing is decoded.

    Yields after each reply, since there may be hours of them. A MongoDB that was there all the
    while, and to which the outbox was restored from another one, has the token's time in its oplog,
    and shows all that was restored as if it was written since.

    Raises:
        HistoryLost: it does not.

    """
    for reply in replies:
        if reply.is_last:
            return
        if has_passed(reply, until):
            break
        yield
    raise errors.HistoryLost(
        "The outbox collection is another one than the checkpoint was written of, and MongoDB's "
        "change stream tells of no exchange: it was restored from a backup. A new term sends what "
        "the collection holds and the topics lack"
    )


def _said(stamp: Timestamp) -> str:
    return f"{stamp.as_datetime():%Y-%m-%d %H:%M:%S}"
