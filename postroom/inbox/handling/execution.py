"""Execution: a job run in the calling thread, and judged."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pymongo.errors import PyMongoError

from postroom import errors
from postroom.failures import Kind, kind_of
from postroom.inbox.handling import retry
from postroom.inbox.handling.call import Stage
from postroom.inbox.handling.last_words import speaking
from postroom.inbox.handling.outcome import GiveUp, Suspected

if TYPE_CHECKING:
    from postroom.inbox.handling.inbox import Inbox
    from postroom.inbox.handling.job import Job
    from postroom.inbox.handling.outcome import Applied, Outcome, TryAgain
    from postroom.settings import Settings

__all__ = ["execute", "forget", "judged"]

# An operator or the kernel may kill a worker some times in a row.
UNTOLD_MORE = 3
# The application's own code runs here: validators, the handler, and what follows its commit.
THEIRS = frozenset({Stage.PREPARING, Stage.HANDLER, Stage.AFTER})
AFTERWARDS = "Its effect stands; what the handler does after its commit failed"


def execute(job: Job, inbox: Inbox, settings: Settings) -> tuple[Outcome, BaseException | None]:
    """Apply the job's handler; return what came of it, and the error where it failed."""
    began = time.monotonic()
    error: BaseException | None = None
    outcome: Outcome
    try:
        outcome = _noted(job, inbox, settings) if job.noted else _applied(job, inbox)
    except _IsSuspect as suspect:
        outcome, error = Suspected(), suspect
    except BaseException as raised:  # noqa: BLE001 - it is judged, shown and ends here
        outcome, error = judged(job, raised, inbox, settings, began=began)
    job.call.end(outcome)
    return outcome, error


def judged(
    job: Job, raised: BaseException, inbox: Inbox, settings: Settings, *, began: float
) -> tuple[TryAgain | GiveUp, BaseException]:
    """Say what becomes of a job that began at a monotonic time, and the error as it is shown."""
    error = _ending(job, raised)
    outcome = retry.judge(
        error,
        handler=job.handler,
        attempt=job.attempt,
        settings=settings,
        since=job.since,
        ours=_is_ours(job, error, inbox, began),
    )
    if isinstance(outcome, GiveUp) and job.call.stage is Stage.AFTER:
        outcome = replace(outcome, reason=f"{AFTERWARDS}: {outcome.reason}")
    return outcome, error


class _IsSuspect(errors.Retry):
    """A worker has ended while it was at work on this event: it is tried again, alone."""


def _is_ours(job: Job, error: BaseException, inbox: Inbox, began: float) -> bool:
    """Say whether our own client has met an error; the handler may use others."""
    if job.call.stage not in THEIRS:
        return True
    return kind_of(error) is Kind.OUTAGE and inbox.has_lost_a_server(since=began)


def _ending(job: Job, error: BaseException) -> BaseException:
    if isinstance(error, Exception):
        return error
    # A handler that calls sys.exit() must not end the worker, nor its event be lost.
    ended = errors.HandlerLost(f"The handler {job.handler.name} raised {type(error).__name__}")
    ended.__cause__ = error
    return ended.with_traceback(error.__traceback__)


def _applied(job: Job, inbox: Inbox) -> Applied:
    with speaking(lambda: inbox.tell(job.handler, job.events)):
        return inbox.apply(job.handler, job.events, job.call, contends=job.contends)


def _noted(job: Job, inbox: Inbox, settings: Settings) -> Applied:
    """Apply it so that the next worker knows, should this one end meanwhile."""
    if job.alone:
        _refuse_guilty(job, inbox, settings)
    elif inbox.begin(job.handler, job.events):
        raise _IsSuspect
    applied = False
    try:
        outcome = _applied(job, inbox)
        applied = True
    finally:
        forget(job, inbox, for_good=applied)
    return outcome


def _refuse_guilty(job: Job, inbox: Inbox, settings: Settings) -> None:
    """Give an event up that has ended too many workers.

    Raises:
        Reject: it has.

    """
    ends = inbox.begin_alone(job.handler, job.events[0])
    # Once may be a mere restart.
    most = max(2, job.handler.max_attempts or settings.max_attempts)
    reason = ""
    if ends.told >= most:
        reason = f"The worker ended {ends.told} times while the handler ran, by its own hand"
    elif ends.alone >= most + UNTOLD_MORE:
        reason = (
            f"The worker ended {ends.alone} times in a row while nothing but the handler ran; "
            "nobody knows by whose hand"
        )
    if reason:
        forget(job, inbox, for_good=False)
        raise errors.Reject(reason)


def forget(job: Job, inbox: Inbox, *, for_good: bool) -> None:
    """Note that the job's end was no end of its worker."""
    # Left behind by an outage, a row counts one attempt too many, and expires.
    with contextlib.suppress(PyMongoError):
        inbox.end(job.handler, job.events, for_good=for_good)
