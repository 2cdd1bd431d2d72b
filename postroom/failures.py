"""Failures: what an error means for an event, and what may be said of it.

One classification for log, retry and dead letter alike.
"""

from __future__ import annotations

import enum

from pydantic import ValidationError
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError, WriteConcernError

from postroom import errors

__all__ = ["Kind", "described", "faults", "is_private", "kind_of"]

# Lock timeouts, exceeded time limits, conflicting, ended and too large transactions: a moment's
# trouble, or the handler's own mistake, which shows by lasting.
CONFLICT_CODES = frozenset({24, 50, 112, 244, 246, 251, 262, 290, 388})
# Unauthorized, AuthenticationFailed, and IllegalOperation, which is what a server that is no
# replica set makes of a transaction: nothing is wrong with the event.
ENVIRONMENT_CODES = frozenset({13, 18, 20})
OUTAGE_CODES = ENVIRONMENT_CODES | (errors.MONGO_TRANSIENT_CODES - CONFLICT_CODES)
QUOTING = frozenset({"value_error", "assertion_error", "union_tag_invalid"})
LONGEST_LINE = 500


class Kind(enum.Enum):
    """Whose failure it is."""

    OUTAGE = "MongoDB is away, between two primaries, or refuses all that this worker does"
    CONFLICT = "another transaction, or the limits of one, stood in the way"
    QUEUED = "others of the handler that write the same come first"
    FINAL = "postroom itself knows that it can never succeed"
    OWN = "the handler's own"


def kind_of(error: BaseException, *, ours: bool = True) -> Kind:
    """Say whose failure an error is.

    It is `ours` where our own client has met it, at work for the inbox or within the handler. What
    another client of the handler's cannot reach, or may not do, is the handler's own.
    """
    if isinstance(error, errors.NotItsTurn):
        return Kind.QUEUED
    if isinstance(error, errors.PostroomError) and not error.transient:
        return Kind.FINAL
    if _is_outage(error):
        return Kind.OUTAGE if ours else Kind.OWN
    if isinstance(error, OperationFailure) and (
        error.code in CONFLICT_CODES or error.has_error_label("TransientTransactionError")
    ):
        return Kind.CONFLICT
    return Kind.OWN


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, (ConnectionFailure, WriteConcernError, errors.ServiceUnavailable)):
        return True
    return isinstance(error, OperationFailure) and error.code in OUTAGE_CODES


def is_private(error: BaseException) -> bool:
    """Whether an error's own text may quote an event's data."""
    return isinstance(error, (PyMongoError, ValidationError))


def described(error: BaseException) -> str:
    """Name an error in one line, without what it may quote of an event's data."""
    if isinstance(error, errors.PostroomError):
        return _line(str(error))
    if isinstance(error, PyMongoError):
        # The driver's text may hold the whole document.
        code = getattr(error, "code", None)
        return type(error).__name__ if code is None else f"{type(error).__name__}, code {code}"
    if isinstance(error, ValidationError):
        return f"ValidationError: {faults(error)}"
    try:
        text = _line(str(error))
    except Exception:  # noqa: BLE001 - an error without a text is still an error
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def faults(error: ValidationError) -> str:
    """Name the fields at fault and what is wrong with each, never a value."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(
        # Deeper places may be keys of the data, and some of pydantic's own texts quote it.
        f"{fault['loc'][0] if fault['loc'] else 'event'}: "
        + (fault["type"] if fault["type"] in QUOTING else fault["msg"])
        for fault in found[:5]
    )


def _line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_LINE]
