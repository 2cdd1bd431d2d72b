"""Failures: whose failure an error is, and so what it means for an event.

One classification for retry and dead letter alike. How loud the log is, `errors.is_transient`
says; what may be said of an error, `private_text`.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from pymongo.errors import ConnectionFailure, OperationFailure, WriteConcernError

from postroom import errors, transience

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Kind", "kind_of", "let_go", "with_what_led_to"]

# Lock timeouts, conflicting, ended, too old and too large transactions: a moment's trouble, or the
# handler's own mistake, which shows by lasting. (No exceeded time limit, 50: within a handler it is
# one that the handler has set itself.)
CONFLICT_CODES = frozenset({24, 112, 225, 244, 246, 251, 262, 290, 388})
# Unauthorized, AuthenticationFailed, IllegalOperation, which is what a server that is no replica
# set makes of a transaction, Atlas' refusal of what is above a quota, OutOfDiskSpace: nothing is
# wrong with the event.
ENVIRONMENT_CODES = frozenset({13, 18, 20, 8000, 14031})
OUTAGE_CODES = ENVIRONMENT_CODES | (transience.MONGO_CODES - CONFLICT_CODES)


class Kind(enum.Enum):
    """Whose failure it is."""

    OUTAGE = "MongoDB is away, between two primaries, or all that this worker does is refused"
    CONFLICT = "another transaction, or the limits of one, stood in the way"
    QUEUED = "others of the handler that write the same come first"
    FINAL = "postroom itself knows that it can never succeed"
    OWN = "the handler's own"


def with_what_led_to(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and those that it was raised from or behind, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def let_go(*seen: BaseException | None) -> None:
    """Let go of the frames of errors that everybody has seen, and of what led to them.

    A frame that has named its error is held by it in turn, with all that was at hand there, until
    Python's collector comes by.
    """
    for error in seen:
        for each in with_what_led_to(error):
            each.__traceback__ = None


def kind_of(error: BaseException, *, ours: bool = True) -> Kind:
    """Say whose failure an error is.

    It is `ours` where our own client has met it, at work for the inbox or within the handler. What
    another client of the handler's cannot reach, or may not do, is the handler's own.
    """
    if isinstance(error, errors.NotItsTurn) and ours:
        return Kind.QUEUED
    if isinstance(error, errors.PostroomError) and not error.transient:
        # A worker whose handlers publish by another number is to be started anew: no event's fault.
        return Kind.OUTAGE if isinstance(error, errors.OtherPartitioning) else Kind.FINAL
    if _is_outage(error):
        return Kind.OUTAGE if ours else Kind.OWN
    return Kind.CONFLICT if _is_conflict(error) else Kind.OWN


def _is_conflict(error: BaseException) -> bool:
    if isinstance(error, errors.PartitioningChanged):
        return True
    return isinstance(error, OperationFailure) and (
        error.code in CONFLICT_CODES or error.has_error_label("TransientTransactionError")
    )


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, (ConnectionFailure, WriteConcernError, errors.ServiceUnavailable)):
        return True
    return isinstance(error, OperationFailure) and error.code in OUTAGE_CODES
