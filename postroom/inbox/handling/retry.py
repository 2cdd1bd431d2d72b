"""Retry: what becomes of an event whose handler failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from postroom import errors, failures, jitter, private_text
from postroom.failures import Kind
from postroom.inbox.handling.outcome import GiveUp, TryAgain

if TYPE_CHECKING:
    from postroom.inbox.handling.handlers import Handler
    from postroom.settings import Settings

__all__ = ["judge", "outage", "wait_seconds"]

OUTAGE_WAIT_SECONDS = 1.0
JITTER = 0.2
# MongoDB's own limit for a transaction is a minute; a frozen worker's lasts that long.
LONGEST_CONFLICT = timedelta(seconds=90)


def judge(
    error: BaseException,
    *,
    handler: Handler,
    attempt: int,
    settings: Settings,
    since: datetime | None = None,
    ours: bool = True,
) -> TryAgain | GiveUp:
    """Decide about an event from the error of its `attempt`-th attempt, counted from one.

    An outage of MongoDB that our own client has met is tried again for as long as it lasts, a
    conflict with another transaction for as long as one can last that began before the first
    failure, at `since`. What can never succeed, and what the handler gives up on, is given up at
    once; everything else after the last attempt.
    """
    kind = failures.kind_of(error, ours=ours)
    described = private_text.described(
        error, package=handler.package, everything=settings.show_payloads
    )
    if kind is Kind.QUEUED:
        return TryAgain(after_seconds=0.0, counts=False, kind=kind, reason=described)
    if kind is Kind.OUTAGE or (kind is Kind.CONFLICT and _may_pass(since)):
        seconds = jitter.around(OUTAGE_WAIT_SECONDS, by=JITTER)
        return TryAgain(after_seconds=seconds, counts=False, kind=kind, reason=described)
    if kind is Kind.FINAL:
        return GiveUp(described)
    wrapped = isinstance(error, (errors.HandlerLost, errors.WriteRefused))
    raised = error.__cause__ if wrapped else error
    if isinstance(raised, handler.give_up_on):
        return GiveUp(f"{described} (the handler gives up on it)")
    limit = handler.max_attempts or settings.max_attempts
    if attempt >= limit:
        return GiveUp(f"{described} (attempt {attempt} of {limit})", tired=True)
    if isinstance(error, errors.Retry) and error.after is not None:
        seconds = max(0.0, error.after.total_seconds())
    else:
        first = handler.backoff_seconds or settings.backoff_seconds
        seconds = wait_seconds(attempt, first=first, longest=settings.backoff_max_seconds)
    return TryAgain(after_seconds=seconds, counts=True, kind=kind, reason=described)


def outage(error: BaseException) -> TryAgain:
    """Decide about an event from an error that is known to be an outage's."""
    return TryAgain(
        after_seconds=jitter.around(OUTAGE_WAIT_SECONDS, by=JITTER),
        counts=False,
        kind=Kind.OUTAGE,
        reason=private_text.described(error),
    )


def _may_pass(since: datetime | None) -> bool:
    return since is None or datetime.now(UTC) - since < LONGEST_CONFLICT


def wait_seconds(attempt: int, *, first: float, longest: float) -> float:
    """Return the wait after the `attempt`-th attempt: it doubles up to `longest`, with jitter."""
    return jitter.around(min(longest, first * 2.0 ** min(attempt - 1, 30)), by=JITTER)
