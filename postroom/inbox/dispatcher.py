"""Dispatcher: gives each event to its handlers in order, and acknowledges it when all are done."""

from __future__ import annotations

import functools
import heapq
import itertools
import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from postroom import errors
from postroom.inbox import retry
from postroom.inbox.backlog import Backlog
from postroom.inbox.delivery import Delivery
from postroom.inbox.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    import pulsar

    from postroom.inbox.dead_letters import DeadLetters
    from postroom.inbox.delivery import Place
    from postroom.inbox.handlers import Handler, Registry
    from postroom.inbox.status import Status
    from postroom.settings import Settings

__all__ = ["Dispatcher", "Runner"]

logger = logging.getLogger(__name__)

# What is held at most besides POSTROOM_PREFETCH: a few of the largest messages fill a gigabyte.
MOST_HELD_BYTES = 32 * 1024 * 1024
TICK_SECONDS = 0.25
PARKED_REPORT_SECONDS = 1.0


class Runner(Protocol):
    """Runs jobs in threads."""

    def submit(self, job: Job, done: Callable[[], None]) -> None:
        """Run job.run() in another thread, and call `done` there in any case, in the end."""

    def withdraw(self, job: Job) -> bool:
        """Take a job back that no thread has begun, and say whether that was in time."""

    def abandon(self, job: Job, reason: str, *, hangs: bool) -> bool:
        """Cut off a job that runs for too long, show it as failed, make up for its thread.

        Says whether it still ran. `hangs` where it is at fault itself.
        """


@dataclass(frozen=True, slots=True)
class Received:
    """A message has come."""

    source: pulsar.Consumer
    message: pulsar.Message
    size: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A job's thread is done with it."""

    job: Job


@dataclass(frozen=True, slots=True)
class Parked:
    """The broker has stored a dead letter, or refused it."""

    delivery: Delivery
    handler: Handler | None
    stored: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """A thread that feeds the dispatcher has failed."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Woken:
    """Something outside has changed."""


Item = Received | Finished | Parked | Failed | Woken


class Dispatcher:
    """The one thread that knows what is held, for as long as one connection lasts.

    Everything reaches it through `post`, so that nothing here needs a lock. Events of one key are
    handled one after another, in the topic's order, also while an earlier one waits to be tried
    again: a negative acknowledgement would let the later ones overtake. Nothing is acknowledged
    before every handler has handled it or the dead-letter topic has stored it.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        registry: Registry,
        subscription: str,
        runner: Runner,
        dead_letters: DeadLetters,
        status: Status,
        most_submitted: int,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._subscription = subscription
        self._runner = runner
        self._dead_letters = dead_letters
        self._most_submitted = most_submitted
        self._mailbox: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._held: dict[Place, Delivery] = {}
        self._held_bytes = 0
        self._coming = threading.Lock()
        self._coming_bytes = 0
        self._backlog = Backlog()
        self._submitted: set[Job] = set()
        self._later: list[tuple[float, int, Job]] = []
        self._count = itertools.count()
        self._suspects_left = settings.prefetch
        self._parked_since_report = 0
        self._report_at = 0.0
        self._next_tick = 0.0
        self.status = status

    # Called from other threads.

    def post(self, item: Item) -> None:
        """Tell the dispatcher something."""
        self._mailbox.put(item)

    @property
    def has_room(self) -> bool:
        """Whether more may be received."""
        waiting = len(self._held) + self._mailbox.qsize()
        held_bytes = self._held_bytes + self._coming_bytes
        return waiting < self._settings.prefetch and held_bytes < MOST_HELD_BYTES

    def announce(self, size: int) -> None:
        """Count a message that is about to be posted."""
        with self._coming:
            self._coming_bytes += size

    def release(self, size: int) -> None:
        """Take a message that was announced off that count."""
        with self._coming:
            self._coming_bytes -= size

    # The dispatcher's own thread.

    def step(self) -> None:
        """Wait a moment for something to happen, and do what follows from it.

        Raises:
            ServiceUnavailable: a dead letter could not be stored; what is held comes again.
            Exception: what a feeding thread failed with.

        """
        self._start_ready()
        wait = TICK_SECONDS
        if self._later:
            wait = min(wait, max(0.0, self._later[0][0] - time.monotonic()))
        try:
            item = self._mailbox.get(timeout=wait)
        except queue.Empty:
            pass
        else:
            self._take(item)
            # What else has gathered meanwhile, without looking at the clock for each.
            for _ in range(min(self._mailbox.qsize(), 1000)):
                self._take(self._mailbox.get_nowait())
        self._on_time()

    def drain(self, seconds: float) -> list[Job]:
        """Let running handlers finish, start none; return those that had not after `seconds`."""
        self._withdraw_waiting()
        try:
            self._await_submitted(time.monotonic() + seconds)
        finally:
            # Whatever happens: nobody looks after them from now on.
            reason = "The connection was closed; the event is delivered again"
            for job in self._submitted:
                job.abandoned = True
                self._runner.abandon(job, reason, hangs=False)
        return list(self._submitted)

    def _await_submitted(self, deadline: float) -> None:
        while (self._submitted or self._parking()) and time.monotonic() < deadline:
            try:
                item = self._mailbox.get(timeout=0.05)
            except queue.Empty:
                continue
            match item:
                case Finished():
                    self._finish(item.job, go_on=False)
                case Parked(stored=True):
                    self._on_parked(item)
                case Parked():
                    item.delivery.parked = False  # not acknowledged, it comes again

    def _withdraw_waiting(self) -> None:
        for job in list(self._submitted):
            if self._runner.withdraw(job):
                job.abandoned = True
                self._submitted.discard(job)

    def _parking(self) -> bool:
        return any(delivery.parked for delivery in self._held.values())

    def _take(self, item: Item) -> None:
        match item:
            case Received():
                self._receive(item)
            case Finished():
                self._finish(item.job, go_on=True)
            case Parked():
                self._on_parked(item)
            case Failed():
                raise item.error
            case Woken():
                pass

    def _receive(self, item: Received) -> None:
        delivery = Delivery.of(item.message, item.source)
        self.release(item.size)
        if delivery.place in self._held:
            # After a reconnect the broker sends again what it has no acknowledgement of.
            return
        self._held[delivery.place] = delivery
        self._held_bytes += delivery.size
        self.status.received += 1
        delivery.suspect = self._suspects_left > 0
        self._suspects_left -= 1
        try:
            event = delivery.open()
        except errors.InvalidEvent as error:
            self._park_unread(delivery, str(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever is in it must not hold up the others
            self._park_unread(delivery, f"The event cannot be read ({type(error).__name__})")
            return
        handlers = self._handlers_of(delivery, event.name)
        if handlers:
            self._queue(delivery, handlers)
        elif delivery.only_for:
            self._park_unread(delivery, f"There is no handler {delivery.only_for[:200]!r} here")
        elif self._settings.strict:
            self._park_unread(delivery, f"No handler wants events called {event.name[:100]!r}")
        else:
            self.status.ignored += 1
            self._settle(delivery)

    def _park_unread(self, delivery: Delivery, reason: str) -> None:
        delivery.failed(None, counts=True)
        self._park(delivery, None, reason)

    def _handlers_of(self, delivery: Delivery, name: str) -> list[Handler]:
        wanted = self._registry.for_event(name, self._subscription)
        only = delivery.only_for
        return [h for h in wanted if h.name == only] if only else wanted

    def _queue(self, delivery: Delivery, handlers: list[Handler]) -> None:
        delivery.handlers = handlers
        delivery.waiting_for = {handler.name for handler in handlers}
        self._backlog.add(delivery)

    def _start_ready(self) -> None:
        while self._backlog and len(self._submitted) < self._most_submitted:
            for handler, deliveries in self._backlog.take():
                self._start(Job(handler, deliveries, attempt=1))

    def _start(self, job: Job) -> None:
        self._runner.submit(job, functools.partial(self.post, Finished(job)))
        self._submitted.add(job)

    def _finish(self, job: Job, *, go_on: bool) -> None:
        if job.abandoned:
            return
        self._submitted.discard(job)
        if job.applied is not None:
            self.status.handled += job.applied.handled
            self.status.repeated += job.applied.repeated
            self._done_with(job, go_on=go_on)
            return
        verdict = job.verdict or self._without_verdict(job)
        if go_on:
            self._after_failure(job, verdict)

    def _without_verdict(self, job: Job) -> retry.Verdict:
        # Celery failed around the job, or the error could not be judged.
        limit = job.handler.max_attempts or self._settings.max_attempts
        if job.attempt >= limit:
            return retry.GiveUp(f"It failed {limit} times, the last time without a word")
        return retry.TryAgain(after_seconds=1.0, counts=True)

    def _after_failure(self, job: Job, verdict: retry.Verdict) -> None:
        counts = isinstance(verdict, retry.GiveUp) or verdict.counts
        whole = isinstance(verdict, retry.GiveUp) and verdict.whole
        if len(job.deliveries) > 1 and counts and not whole:
            self._split(job)
            return
        for delivery in job.deliveries:
            delivery.failed(job.handler, counts=counts)
        match verdict:
            case retry.GiveUp():
                for delivery in job.deliveries:
                    self._park(delivery, job.handler, verdict.reason)
                self._go_on(job)
            case retry.TryAgain():
                self.status.retried += 1
                again = Job(job.handler, job.deliveries, job.attempt + verdict.counts, job.then)
                due = time.monotonic() + verdict.after_seconds
                heapq.heappush(self._later, (due, next(self._count), again))

    def _split(self, job: Job) -> None:
        # Halves, one after the other since they may share a key, until the poison one is alone.
        half = len(job.deliveries) // 2
        first, second = job.deliveries[:half], job.deliveries[half:]
        self._start(Job(job.handler, first, attempt=1, then=[second, *job.then]))

    def _done_with(self, job: Job, *, go_on: bool) -> None:
        for delivery in job.deliveries:
            self._handled(delivery, job.handler)
        if go_on:
            self._go_on(job)

    def _go_on(self, job: Job) -> None:
        if job.then:
            following, *rest = job.then
            self._start(Job(job.handler, following, attempt=1, then=rest))

    def _handled(self, delivery: Delivery, handler: Handler | None) -> None:
        delivery.waiting_for.discard(handler.name if handler else "")
        if not delivery.waiting_for:
            self._settle(delivery)

    def _settle(self, delivery: Delivery) -> None:
        self._backlog.done(delivery)
        self._held.pop(delivery.place, None)
        self._held_bytes -= delivery.size
        delivery.source.acknowledge(delivery.message)

    def _park(self, delivery: Delivery, handler: Handler | None, reason: str) -> None:
        delivery.parked = True
        failures = delivery.failures[handler.name if handler else ""]
        if self._parked_since_report == 0:
            logger.warning(
                "An event on %s became a dead letter%s: %s",
                delivery.place[0],
                f" of {handler.name}" if handler else "",
                reason,
                extra={"action": "dead_letter", "event_id": delivery.event_id},
            )
            self._report_at = time.monotonic() + PARKED_REPORT_SECONDS
        self._parked_since_report += 1

        def stored(ok: bool) -> None:  # noqa: FBT001 - the client's callback
            self.post(Parked(delivery, handler, ok))

        self._dead_letters.park(
            delivery, reason=reason, handler=handler, failures=failures, stored=stored
        )

    def _on_parked(self, item: Parked) -> None:
        item.delivery.parked = False
        if not item.stored:
            raise errors.ServiceUnavailable(
                "Pulsar did not store a dead letter; the consumer connects anew and what it held "
                "is delivered again"
            )
        self.status.dead_letters += 1
        self._handled(item.delivery, item.handler)

    def _on_time(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._start(heapq.heappop(self._later)[2])
        if now < self._next_tick:
            return
        self._next_tick = now + TICK_SECONDS
        self._report_timeouts(now)
        if self._parked_since_report and now >= self._report_at:
            if self._parked_since_report > 1:
                logger.warning("%d more events became dead letters", self._parked_since_report - 1)
            self._parked_since_report = 0
        self.status.held, self.status.held_bytes = len(self._held), self._held_bytes
        self.status.running = sum(job.started is not None for job in self._submitted)
        self.status.waiting_to_retry = len(self._later)

    def _report_timeouts(self, now: float) -> None:
        for job in list(self._submitted):
            limit = job.handler.timeout_seconds or self._settings.handler_timeout_seconds
            entered = job.call.entered
            if entered is None or now - entered <= limit:
                continue
            if not self._runner.abandon(job, "HandlerTimeout()", hangs=True):
                continue  # it has just come back, and says so itself
            job.abandoned = True
            self._submitted.discard(job)
            self.status.timed_out += 1
            error = errors.HandlerTimeout(
                f"The handler {job.handler.name} ran past its timeout of {limit:g} s"
            )
            logger.error(
                "%s with event %s; the event is given to it again",
                error,
                job.deliveries[0].event_id,
                extra={"action": "handler_timeout"},
            )
            self._after_failure(
                job,
                retry.judge(
                    error, handler=job.handler, attempt=job.attempt, settings=self._settings
                ),
            )
