"""Runner: runs jobs as Celery tasks in threads of its own, without Redis in between."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from celery import Task, signals
from celery.exceptions import Retry as CeleryRetry

from postroom import errors, failures, private_text, topics, tracing
from postroom.celery import adapter
from postroom.celery.errand import Errand, members
from postroom.celery.handler_threads import HandlerThreads
from postroom.celery.placement import Placement
from postroom.celery.step import end_worker
from postroom.inbox.handling import task_ids
from postroom.inbox.handling.outcome import GiveUp, Suspected, TryAgain, Undone
from postroom.inbox.scheduling.isolation import Isolation

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from postroom.celery.task_events import TaskEvents
    from postroom.inbox.consumer import Consumer
    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.handling.job import Job
    from postroom.inbox.handling.outcome import Outcome

__all__ = ["Errand", "HandlerTask", "TaskRunner", "register"]

# What keeps a handler's task from waiting for Redis, or from leaving Pulsar for it.
OWN = ("acks_late", "autoretry_for", "ignore_result", "store_errors_even_if_ignored", "typing")
MOST_NAMES_SHOWN = 5
LONGEST_SHOWN = 4096
REVOKED = GiveUp("The task was revoked before the handler ran", whole=True)


class HandlerTask(Task):
    """The Celery task of a handler. It is run by the consumer worker only, for an event."""

    abstract = True
    # Nothing waits for a result, and none must wait for Redis.
    ignore_result = True
    store_errors_even_if_ignored = False
    acks_late = True
    send_events = True
    typing = False
    autoretry_for = ()

    def run(self, *_args: Any, **_shown: Any) -> str:
        """Hand the job's events to the handler; what came of it decides what Flower shows."""
        request = self.request
        errand: Errand | None = adapter.carried(request)
        if errand is None:
            raise errors.InboxError(
                f"{self.name} is a handler: it runs for an event, in a consumer worker, and is not "
                "to be called as a task"
            )
        if adapter.is_revoked(request.id):
            # Celery looks when it takes a task in, and this one has waited since for a thread.
            errand.refuse(REVOKED)
            raise errors.Reject(REVOKED.reason)
        outcome, error = _traced(errand) if tracing.is_on() else errand.execute()
        if error is None:
            return str(outcome)
        shown = private_text.shown(
            error,
            package=errand.job.handler.package,
            everything=self.app.postroom.settings.show_payloads,
        )
        if shown is not error:
            failures.let_go(error)  # nobody sees it any more
        if isinstance(outcome, (Suspected, Undone)):
            raise CeleryRetry(exc=shown, when=0.0) from None
        if isinstance(outcome, TryAgain):
            # Celery's own state for it; the event itself stays in Pulsar, unacknowledged.
            raise CeleryRetry(exc=shown, when=outcome.after_seconds) from None
        if isinstance(shown, MemoryError):
            # Of this one Celery makes an error of the worker.
            shown = errors.HandlerLost(f"The handler {self.name} raised {type(shown).__name__}")
        raise shown from None

    def retry(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse: it would move the event to Redis.

        Raises:
            InboxError: always.

        """
        raise errors.InboxError(
            "self.retry() would move the event from Pulsar to Redis; raise postroom.Retry(after=…)"
        )


def register(app: Celery, handler: Handler) -> HandlerTask:
    """Make a handler's function known to the application as a task."""
    own: dict[str, Any] = {
        "name": handler.name,
        "__doc__": handler.function.__doc__,
        "abstract": False,
    }
    if app.Task.__call__ is Task.__call__ and adapter.calls_tasks_itself():
        # Celery's own makes the request once more for a task within a task, as a group's are.
        own["__call__"] = HandlerTask.run
    # The application's own kind of task (task_cls) sees what its hooks see of any task.
    kind = type("HandlerTask", (HandlerTask, app.Task), own)
    task: HandlerTask = app.register_task(kind())
    for name in OWN:
        # The application's task_annotations are laid over the class, those for all tasks as well.
        setattr(task, name, getattr(HandlerTask, name))
    return task


class TaskRunner:
    """Runs each job as the request that Celery would have made of a message. Thread-safe."""

    def __init__(self, worker: Any, events: TaskEvents) -> None:
        self._worker = worker
        self._events = events
        self._threads = HandlerThreads(worker.concurrency)
        self._requests: dict[str, adapter.Requests] = {}
        self.isolation = Isolation()

    @property
    def has_abandoned(self) -> bool:
        """Whether a thread hangs in a job that was abandoned."""
        return self._threads.hung > 0

    def stop(self) -> None:
        """Have the threads end as soon as they are free."""
        self._threads.stop()

    def prepare(self, handlers: list[Handler]) -> None:
        """Register the handlers' tasks; before the first job."""
        for handler in handlers:
            task = register(self._worker.app, handler)
            adapter.trace_in(self._worker.app, task, self._worker.hostname)
            self._requests[handler.name] = adapter.Requests(
                task, hostname=self._worker.hostname, eventer=self._events
            )

    def of(self, consumer: Consumer | None = None) -> _ConsumersRunner:
        """Return the runner of one consumer; the consumer itself is set afterwards."""
        return _ConsumersRunner(self, consumer)

    def submit(self, errand: Errand, done: Callable[[Outcome], None]) -> Placement:
        """Run a job in a thread; `done` is told once in the end, also where it was cut off.

        Not where it was withdrawn, where its thread never comes back, or where this raises. Each
        member of a group is a task of its own, which its thread runs when it is its turn.
        """
        errands = members(errand)
        requests = [self._request(each) for each in errands]
        placement = Placement(
            errand, requests, self._threads, done=done, too_many_hang=self._give_up_worker
        )
        calls: list[Callable[[], object] | None] = []
        told = self._events.enabled
        for each, request in zip(errands, requests, strict=True):
            if told:
                self._tell_received(request, attempt=each.job.attempt)
            try:
                calls.append(functools.partial(self._receive, request, adapter.reserve(request)))
            except adapter.TaskRevokedError:
                each.refuse(REVOKED)
                calls.append(None)
        sharing, first = errands[0].sharing, calls[0]
        if sharing is not None:
            placement.submit(functools.partial(sharing.run, calls))
        elif first is None:
            placement.end()
        else:
            placement.submit(first)
        return placement

    def _receive(self, request: adapter.EventRequest, call: Callable[[], object]) -> None:
        # In the handler's thread, where a receiver that hangs holds up nobody else.
        signals.task_received.send(sender=getattr(self._worker, "consumer", None), request=request)
        call()

    def _tell_received(self, request: adapter.EventRequest, *, attempt: int) -> None:
        self._events.send(
            "task-received",
            uuid=request.id,
            name=request.name,
            args=request.argsrepr,
            kwargs=request.kwargsrepr,
            retries=attempt - 1,
            root_id=request.id,
            parent_id=None,
            eta=None,
            expires=None,
        )

    def _give_up_worker(self, hung: int) -> None:
        end_worker(
            self._worker.app,
            f"{hung} handlers hang past their timeout and cannot be stopped; the worker ends "
            "with exit code 1 so that it is started anew, and their events are delivered again",
        )

    def _request(self, errand: Errand) -> adapter.EventRequest:
        job = errand.job
        installed = self._worker.app.postroom
        shown = _shown(job, payloads=installed.settings.show_payloads)
        return self._requests[job.handler.name].make(
            task_id=task_ids.of_subscription(
                job.task_id,
                errand.consumer.status.subscription,
                alone=len(installed.consume) == 1,
            ),
            retries=job.attempt - 1,
            shown=shown,
            kwargsrepr=repr(shown)[:LONGEST_SHOWN],
            routing_key=job.topic,
            cargo=errand,
            carried=tracing.context_in(job.events[0].headers) if len(job.events) == 1 else {},
        )


def _traced(errand: Errand) -> tuple[Outcome, BaseException | None]:
    """Execute it within the span of one attempt, in which the handler's own spans are."""
    job, first = errand.job, errand.job.events[0]
    span = tracing.processing(
        [event.headers for event in job.events],
        handler=job.handler.name,
        attributes={
            "messaging.destination.name": topics.base_topic(job.topic),
            "messaging.destination.subscription.name": errand.consumer.status.subscription,
            "messaging.message.id": first.id[:300],
            "messaging.batch.message_count": len(job.events),
            "postroom.attempt": job.attempt,
        },
    )
    with span as attempt:
        outcome, error = errand.execute()
        if error is not None:
            attempt.failed(error)
    return outcome, error


class _ConsumersRunner:
    """What a dispatcher sees of the TaskRunner."""

    def __init__(self, runner: TaskRunner, consumer: Consumer | None) -> None:
        self._runner = runner
        self.consumer = consumer

    @property
    def isolation(self) -> Isolation:
        return self._runner.isolation

    def submit(self, job: Job, done: Callable[[Outcome], None]) -> Placement:
        if self.consumer is None:
            raise AssertionError
        return self._runner.submit(Errand(self.consumer, job), done)


def _shown(job: Job, *, payloads: bool) -> dict[str, Any]:
    """Return what Flower shows as the arguments: which event it is, not what it says."""
    first = job.events[0]
    if len(job.events) == 1:
        shown: dict[str, Any] = {"event": first.name, "id": first.id[:300], "attempt": job.attempt}
        if payloads:
            shown["data"] = first.data if _can_be_shown(first.data) else "nested too deeply"
        return shown
    return {
        "events": len(job.events),
        "names": sorted({event.name for event in job.events})[:MOST_NAMES_SHOWN],
        "first": first.id[:300],
        "last": job.events[-1].id[:300],
    }


def _can_be_shown(data: object) -> bool:
    try:
        repr(data)
    except RecursionError:
        return False
    return True
