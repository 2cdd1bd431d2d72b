"""Retry: what becomes of an event whose handler failed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError, WriteConcernError

from postroom import errors

if TYPE_CHECKING:
    from postroom.inbox.handlers import Handler
    from postroom.settings import Settings

__all__ = [
    "GiveUp",
    "TryAgain",
    "Verdict",
    "described",
    "faults",
    "is_private",
    "judge",
    "wait_seconds",
]

OUTAGE_WAIT_SECONDS = 1.0
# Exceeded time limits, conflicting, ended and too large transactions: a moment's trouble, or the
# handler's own mistake, which shows by lasting.
CONFLICT_CODES = frozenset({50, 112, 244, 246, 251, 262, 388})
# Unauthorized, AuthenticationFailed, and IllegalOperation, which is what a server that is no
# replica set makes of a transaction: nothing is wrong with the event.
ENVIRONMENT_CODES = frozenset({13, 18, 20})
# MongoDB's own limit for a transaction is a minute; a frozen worker's lasts that long.
LONGEST_CONFLICT = timedelta(seconds=90)
QUOTING = frozenset({"value_error", "assertion_error", "union_tag_invalid"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TryAgain:
    """The handler is called again after a wait; an outage does not count as an attempt."""

    after_seconds: float
    counts: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The event goes to the dead letters, for a reason; of a batch all, or the one at fault."""

    reason: str
    whole: bool = False


Verdict = TryAgain | GiveUp


def judge(
    error: BaseException,
    *,
    handler: Handler,
    attempt: int,
    settings: Settings,
    since: datetime | None = None,
) -> TryAgain | GiveUp:
    """Decide about an event from the error of its `attempt`-th attempt, counted from one.

    An outage of MongoDB is tried again for as long as it lasts, a conflict with another transaction
    for as long as one can last that began before the first failure, at `since`. What can never
    succeed, and what the handler gives up on, is given up at once; everything else after the last
    attempt.
    """
    if _is_outage(error) or (_is_conflict(error) and _may_pass(since)):
        return TryAgain(after_seconds=_jittered(OUTAGE_WAIT_SECONDS), counts=False)
    if isinstance(error, errors.PostroomError) and not error.transient:
        return GiveUp(described(error))
    if isinstance(error, handler.give_up_on):
        return GiveUp(f"{described(error)} (the handler gives up on it)")
    limit = handler.max_attempts or settings.max_attempts
    if attempt >= limit:
        return GiveUp(f"{described(error)} (attempt {attempt} of {limit})")
    if isinstance(error, errors.Retry) and error.after is not None:
        return TryAgain(after_seconds=max(0.0, error.after.total_seconds()), counts=True)
    first = handler.backoff_seconds or settings.backoff_seconds
    return TryAgain(
        after_seconds=wait_seconds(attempt, first=first, longest=settings.backoff_max_seconds),
        counts=True,
    )


def _is_outage(error: BaseException) -> bool:
    """Whether MongoDB is away, between two primaries, or refuses all that this worker does."""
    if isinstance(error, (ConnectionFailure, WriteConcernError)):
        return True
    outage_codes = ENVIRONMENT_CODES | (errors.MONGO_TRANSIENT_CODES - CONFLICT_CODES)
    return isinstance(error, OperationFailure) and error.code in outage_codes


def _is_conflict(error: BaseException) -> bool:
    """Whether another transaction, or the limits of one, stood in the way."""
    return isinstance(error, OperationFailure) and (
        error.code in CONFLICT_CODES or error.has_error_label("TransientTransactionError")
    )


def _may_pass(since: datetime | None) -> bool:
    return since is None or datetime.now(UTC) - since < LONGEST_CONFLICT


def wait_seconds(attempt: int, *, first: float, longest: float) -> float:
    """Return the wait after the `attempt`-th attempt: it doubles up to `longest`, with jitter."""
    return _jittered(min(longest, first * 2.0 ** min(attempt - 1, 30)))


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


def is_private(error: BaseException) -> bool:
    """Whether an error's own text may quote an event's data."""
    return isinstance(error, (PyMongoError, ValidationError))


def _line(text: str) -> str:
    return " ".join(text.split())[:500]


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
