"""Runner: runs jobs as Celery tasks in threads of its own, without Redis in between."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.exceptions import Retry as CeleryRetry

from postroom import errors, failures
from postroom.celery import adapter
from postroom.celery.ending import end_worker
from postroom.celery.handler_threads import HandlerThreads, Turn
from postroom.inbox import retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from postroom.celery.task_events import TaskEvents
    from postroom.inbox.consumer import Consumer
    from postroom.inbox.handlers import Handler
    from postroom.inbox.job import Job

__all__ = ["HandlerTask", "TaskRunner", "register"]

MOST_NAMES_SHOWN = 5
LONGEST_SHOWN = 4096
REVOKED = "The task was revoked before the handler ran"


class HandlerTask(Task):
    """The Celery task of a handler. It is run by the consumer worker only, for an event."""

    abstract = True
    # Nothing waits for a result, and none must wait for Redis.
    ignore_result = True
    store_errors_even_if_ignored = False
    acks_late = True
    send_events = True
    typing = False

    def run(self, *_args: Any, **_shown: Any) -> str:
        """Hand the job's events to the handler; what it raises decides what Flower shows."""
        found: tuple[Consumer, Job] | None = adapter.carried(self.request)
        if found is None:
            raise errors.InboxError(
                f"{self.name} is a handler: it runs for an event, in a consumer worker, and is not "
                "to be called as a task"
            )
        consumer, job = found
        if adapter.is_revoked(self.request.id):
            # Celery looks when it takes a task in, and this one has waited since for a thread.
            job.verdict = retry.GiveUp(REVOKED, whole=True)
            raise errors.Reject(REVOKED)
        try:
            return str(consumer.execute(job))
        except Exception as error:  # noqa: BLE001 - the dispatcher has its verdict already
            shown = self._shown(error)
            if isinstance(job.verdict, retry.TryAgain):
                # Celery's own state for it; the event itself stays in Pulsar, unacknowledged.
                raise CeleryRetry(exc=shown, when=job.verdict.after_seconds) from None
            raise shown from None

    def _shown(self, error: Exception) -> Exception:
        """Return what log and Flower may show: drivers and validators quote an event's data."""
        if self.app.postroom.settings.show_payloads or not failures.is_private(error):
            error.__cause__ = None
            return error
        return errors.InboxError(failures.described(error)).with_traceback(error.__traceback__)

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
    kind = type(
        "HandlerTask",
        (HandlerTask,),
        {
            "name": handler.name,
            "__doc__": handler.function.__doc__,
            "abstract": False,
        },
    )
    task: HandlerTask = app.register_task(kind())
    return task


class TaskRunner:
    """Runs each job as the request that Celery would have made of a message."""

    def __init__(self, worker: Any, events: TaskEvents) -> None:
        self._worker = worker
        self._events = events
        self._threads = HandlerThreads(worker.concurrency)
        self._placed: dict[Job, tuple[adapter.EventRequest, Turn]] = {}
        self._tasks: dict[str, HandlerTask] = {}

    @property
    def has_abandoned(self) -> bool:
        """Whether a thread hangs in a job that was abandoned."""
        return self._threads.hung > 0

    def stop(self) -> None:
        """Have the threads end as soon as they are free."""
        self._threads.stop()

    def prepare(self, handlers: list[Handler]) -> None:
        """Register the handlers' tasks."""
        for handler in handlers:
            task = register(self._worker.app, handler)
            adapter.trace_in(self._worker.app, task, self._worker.hostname)
            self._tasks[handler.name] = task

    def of(self, consumer: Consumer | None = None) -> _ConsumersRunner:
        """Return the runner of one consumer; the consumer itself is set afterwards."""
        return _ConsumersRunner(self, consumer)

    def submit(self, consumer: Consumer, job: Job, done: Callable[[], None]) -> None:
        """Run a job in a thread; `done` is called in the end whatever happens."""
        request = self._request(consumer, job)
        turn = Turn(run=_nothing, done=functools.partial(self._finished, job, done))
        self._placed[job] = request, turn
        self._events.send(
            "task-received",
            uuid=request.id,
            name=request.name,
            args=request.argsrepr,
            kwargs=request.kwargsrepr,
            retries=job.attempt - 1,
            root_id=request.id,
            parent_id=None,
            eta=None,
            expires=None,
        )
        try:
            adapter.run(request, functools.partial(self._submit, turn))
        except adapter.TaskRevokedError:
            job.verdict = retry.GiveUp(REVOKED, whole=True)
            turn.done()

    def _submit(self, turn: Turn, call: Callable[[], object]) -> Turn:
        turn.run = call
        self._threads.submit(turn)
        return turn

    def withdraw(self, job: Job) -> bool:
        """Take a job back that no thread has begun, and say whether that was in time."""
        placed = self._placed.get(job)
        if placed is None or not self._threads.withdraw(placed[1]):
            return False
        self._forget(job)
        return True

    def abandon(self, consumer: Consumer, job: Job, reason: str, *, hangs: bool) -> bool:
        """Show a job as failed and put another thread in the place of its own, if it still runs."""
        placed = self._placed.get(job)
        if placed is None or not self._threads.replace(placed[1]):
            return False
        job.call.is_cut_off = True
        # In a thread: MongoDB may be what it hangs on.
        threading.Thread(target=consumer.cut_off, args=(job,), daemon=True).start()
        placed[0].send_event("task-failed", exception=reason, traceback="")
        if hangs and self._threads.hung > self._threads.limit:
            self._give_up_worker(self._threads.hung)
        return True

    def _give_up_worker(self, hung: int) -> None:
        end_worker(
            self._worker.app,
            f"{hung} handlers hang past their timeout and cannot be stopped; the worker ends "
            "with exit code 1 so that it is started anew, and their events are delivered again",
        )

    def _finished(self, job: Job, done: Callable[[], None]) -> None:
        self._forget(job)
        done()

    def _forget(self, job: Job) -> None:
        placed = self._placed.pop(job, None)
        if placed is not None:
            adapter.forget(placed[0])

    def _request(self, consumer: Consumer, job: Job) -> adapter.EventRequest:
        shown = _shown(job, payloads=self._worker.app.postroom.settings.show_payloads)
        return adapter.request(
            self._tasks[job.handler.name],
            hostname=self._worker.hostname,
            eventer=self._events,
            task_id=self._task_id(consumer, job),
            retries=job.attempt - 1,
            shown=shown,
            kwargsrepr=repr(shown)[:LONGEST_SHOWN],
            routing_key=job.deliveries[0].place[0],
            cargo=(consumer, job),
        )

    def _task_id(self, consumer: Consumer, job: Job) -> str:
        # Two subscriptions of one application may read the same event.
        if len(self._worker.app.postroom.consume) == 1:
            return job.task_id
        return f"{job.task_id}@{consumer.status.subscription}"


def _nothing() -> None:
    pass


class _ConsumersRunner:
    """What a dispatcher sees of the TaskRunner."""

    def __init__(self, runner: TaskRunner, consumer: Consumer | None) -> None:
        self._runner = runner
        self.consumer = consumer

    def submit(self, job: Job, done: Callable[[], None]) -> None:
        self._runner.submit(self._its_consumer(), job, done)

    def withdraw(self, job: Job) -> bool:
        return self._runner.withdraw(job)

    def abandon(self, job: Job, reason: str, *, hangs: bool) -> bool:
        return self._runner.abandon(self._its_consumer(), job, reason, hangs=hangs)

    def _its_consumer(self) -> Consumer:
        if self.consumer is None:
            raise AssertionError
        return self.consumer


def _shown(job: Job, *, payloads: bool) -> dict[str, Any]:
    """Return what Flower shows as the arguments: which event it is, not what it says."""
    first = job.deliveries[0]
    if len(job.deliveries) == 1:
        shown: dict[str, Any] = {
            "event": first.event.name if first.event else None,
            "id": first.event_id[:300],
            "attempt": job.attempt,
        }
        if payloads and first.event:
            shown["data"] = first.event.data
        return shown
    names = sorted({d.event.name for d in job.deliveries if d.event})
    return {
        "events": len(job.deliveries),
        "names": names[:MOST_NAMES_SHOWN],
        "first": first.event_id[:300],
        "last": job.deliveries[-1].event_id[:300],
    }
