"""Underway: the jobs that are with the runner."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Protocol

from postroom import errors
from postroom.inbox.handling import retry
from postroom.inbox.handling.call import Stage
from postroom.inbox.handling.outcome import Applied, Lost, Shared, Undone
from postroom.inbox.handling.standstill import Standstill
from postroom.inbox.scheduling.mailbox import CutOff, Finished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.handling.job import Job
    from postroom.inbox.handling.outcome import GiveUp, Outcome, TryAgain
    from postroom.inbox.scheduling.hanging import Hanging
    from postroom.inbox.scheduling.isolation import Isolation
    from postroom.inbox.scheduling.mailbox import Mailbox
    from postroom.inbox.scheduling.work import Work
    from postroom.settings import Settings

__all__ = ["Placement", "Runner", "Underway"]

logger = logging.getLogger(__name__)

# Where a job waits for nothing but MongoDB.
MONGODB = frozenset({Stage.INBOX, Stage.COMMIT})
CLOSED = "The connection was closed; the event is delivered again"


class Placement(Protocol):
    """A job that was given to a runner."""

    def withdraw(self) -> bool:
        """Take it back if no thread has begun it, and say whether that was in time."""

    def is_hung(self) -> bool:
        """Say whether a thread is in it still, although it was abandoned."""

    def abandon(
        self, reason: str, *, hangs: bool, over: Callable[[bool], None] | None = None
    ) -> bool:
        """Cut it off, show it as failed, make up for its thread; say whether it still ran.

        `hangs` where it is at fault itself. `over` is told whether MongoDB has answered to the end
        of its transaction; only then is that certain.
        """


class Runner(Protocol):
    """Runs jobs in threads of a worker, in which some have to run alone."""

    @property
    def isolation(self) -> Isolation:
        """Who may run now, whatever the worker consumes."""

    def submit(self, job: Job, done: Callable[[Outcome], None]) -> Placement:
        """Run a job in another thread; `done` is told once what came of it, also if it was cut off.

        Not where it was withdrawn, where its thread never comes back, or where this raises.
        """


class _Nowhere:
    """Where a job is that no runner has taken."""

    def is_hung(self) -> bool:
        return False

    def withdraw(self) -> bool:
        return True

    def abandon(self, reason: str, *, hangs: bool, over: object = None) -> bool:  # noqa: ARG002
        return False


class Underway:
    """Jobs between their start and their end; the dispatcher's own.

    What it gives to other threads to call, when a job has ended or is cut off, does nothing but
    post to the mailbox. What was abandoned is under way no more: should it come back, nobody
    listens. For its `threads` the runner is given as many jobs, and some `ahead`; `in_groups` are
    the events of all groups.
    """

    def __init__(
        self,
        runner: Runner,
        mailbox: Mailbox,
        settings: Settings,
        *,
        hanging: Hanging,
        threads: int,
        ahead: int,
    ) -> None:
        self._runner = runner
        self._mailbox = mailbox
        self._settings = settings
        self._hanging = hanging
        self.most = threads + ahead
        self.threads = threads
        self.in_groups = 0
        self._jobs: dict[Job, tuple[Work, Placement]] = {}
        self._standstill = Standstill()

    def __iter__(self) -> Iterator[Work]:
        """Walk over what is being done."""
        return (work for work, _ in self._jobs.values())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._jobs)

    @property
    def free(self) -> int:
        """How many more may be started."""
        return max(0, self.most - len(self._jobs))

    @property
    def running(self) -> list[Job]:
        """Those that a thread has begun."""
        return [job for job in self._jobs if job.call.has_begun]

    def of(self, handler: Handler) -> int:
        """Return how many of a handler there are."""
        return sum(job.handler is handler for job in self._jobs)

    def start(self, work: Work, *, contends: bool) -> bool:
        """Give a job to the runner, if it may run now; say whether it may."""
        isolation = self._runner.isolation
        if not (isolation.enter_alone(self) if work.alone else isolation.enter()):
            return False
        limit = self._settings.handler_timeout_seconds
        job = work.job(limit_seconds=limit, contends=contends, standstill=self._standstill)

        def done(outcome: Outcome) -> None:
            self._mailbox.post(Finished(job, outcome))

        try:
            placement = self._runner.submit(job, done)
        except Exception:
            # One event that Celery cannot take must not end the connection, and so all others.
            logger.exception("Celery did not take a task of %s", job.handler.name)
            placement = _Nowhere()
            done(Lost())
        self._jobs[job] = work, placement
        if work.is_group:
            self.in_groups += len(work.deliveries)
        return True

    def end(self, job: Job) -> Work | None:
        """Return the work that a job has done, or None where it had been abandoned."""
        if job not in self._jobs:
            return None
        return self._over(job)

    def _over(self, job: Job) -> Work:
        work, _ = self._jobs.pop(job)
        if work.is_group:
            self.in_groups -= len(work.deliveries)
        if work.alone:
            self._runner.isolation.leave_alone()
        else:
            self._runner.isolation.leave()
        return work

    def withdraw(self) -> None:
        """Take back all that no thread has begun."""
        for job, (_, placement) in list(self._jobs.items()):
            if placement.withdraw():
                self._over(job)

    def abandon(self) -> int:
        """Cut off all that still runs, and look after nothing any more; return how much there was.

        What was cut off begins no commit any more.
        """
        left = list(self._jobs.items())
        for job, (_, placement) in left:
            placement.abandon(CLOSED, hangs=False)
            self._over(job)
        self._runner.isolation.forget(self)
        return len(left)

    def timed_out(self) -> Iterator[Job]:
        """Abandon what has run for too long; what follows comes through the mailbox.

        Asked for a few times a second, by which it is also known when the process stood still.
        """
        self._standstill.beat()
        for job, (work, placement) in list(self._jobs.items()):
            if not job.call.is_overdue:
                continue
            stage = job.call.stage
            over = functools.partial(self._cut_off, work, job, stage)
            if not placement.abandon("HandlerTimeout()", hangs=stage not in MONGODB, over=over):
                continue  # it has just come back, and says so itself
            self._over(job)
            where = f"{job.handler.name} {stage.value}"
            self._hanging.add(where, placement.is_hung)
            logger.error(
                "%s, with event %s; %s",
                _timeout(job, stage),
                job.events[job.call.turn].id,
                "that was an attempt" if _is_attempt(job, stage) else "it is tried again",
                extra={"action": "handler_timeout", "event_id": job.events[job.call.turn].id},
            )
            yield job
        self._hanging.report()

    def _cut_off(self, work: Work, job: Job, stage: Stage, answered: bool) -> None:  # noqa: FBT001 - a callback
        self._mailbox.post(CutOff(work, job, stage, answered))

    def after_timeout(self, item: CutOff) -> Outcome:
        """Say what becomes of a job that was cut off.

        What it had come to stands, where that is known. Where MongoDB kept it waiting it is an
        outage; everything else is an attempt, of a group for the event whose turn it was. Whose
        write it was that took so long shows where each of them is handled by itself.
        """
        known, job = item.job.call.outcome, item.job
        if isinstance(known, (Applied, Shared)):
            return known
        error = _timeout(job, item.stage)
        is_outage = item.stage in MONGODB or not item.answered
        if not job.members:
            return retry.outage(error) if is_outage else self.judged(job, error)
        if is_outage:
            return Shared((retry.outage(error),) * len(job.members))
        outcomes: list[Applied | TryAgain | GiveUp | Undone] = [Undone()] * len(job.members)
        if item.stage is not Stage.WRITES:
            outcomes[job.call.turn] = self.judged(job.members[job.call.turn], error)
        return Shared(tuple(outcomes))

    def judged(self, job: Job, error: BaseException | None = None) -> TryAgain | GiveUp:
        """Say what becomes of a job that came to no word of its own."""
        if error is None:
            error = errors.HandlerLost(
                f"Celery failed around the handler {job.handler.name}; its own log says how"
            )
        return retry.judge(
            error,
            handler=job.handler,
            attempt=job.attempt,
            settings=self._settings,
            since=job.since,
        )


def _is_attempt(job: Job, stage: Stage) -> bool:
    return stage not in MONGODB and not (stage is Stage.WRITES and job.members)


def _timeout(job: Job, stage: Stage) -> errors.HandlerTimeout:
    return errors.HandlerTimeout(
        f"The handler {job.handler.name} ran past its timeout of {job.call.limit_seconds:g} s: it "
        f"hangs {stage.value}"
    )
