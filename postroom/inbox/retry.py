"""Retry: what becomes of an event whose handler failed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymongo.errors import PyMongoError

from postroom import errors

if TYPE_CHECKING:
    from postroom.inbox.handlers import Handler
    from postroom.settings import Settings

__all__ = ["GiveUp", "TryAgain", "Verdict", "judge", "wait_seconds"]

OUTAGE_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TryAgain:
    """The handler is called again after a wait; an outage does not count as an attempt."""

    after_seconds: float
    counts: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The event goes to the dead letters, for a reason."""

    reason: str


Verdict = TryAgain | GiveUp


def judge(
    error: BaseException, *, handler: Handler, attempt: int, settings: Settings
) -> TryAgain | GiveUp:
    """Decide about an event from the error of its `attempt`-th attempt, counted from one.

    An outage of MongoDB is tried again for as long as it lasts. What can never succeed, and what
    the handler gives up on, is given up at once; everything else after the last attempt.
    """
    if isinstance(error, PyMongoError) and errors.is_transient(error):
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


def wait_seconds(attempt: int, *, first: float, longest: float) -> float:
    """Return the wait after the `attempt`-th attempt: it doubles up to `longest`, with jitter."""
    return _jittered(min(longest, first * 2.0 ** min(attempt - 1, 30)))


def described(error: BaseException) -> str:
    """Name an error in one line."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, errors.PostroomError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
