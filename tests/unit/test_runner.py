"""The runner of handlers' tasks, without a worker around it."""

from __future__ import annotations

import functools
import gc
import queue
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery, Task, current_app, signals
from celery.app import trace

from postroom import Event, Settings, handles
from postroom.celery import adapter
from postroom.celery.errand import Errand
from postroom.celery.handler_threads import Turn
from postroom.celery.placement import Placement
from postroom.celery.runner import TaskRunner
from postroom.failures import Kind
from postroom.inbox.handling.call import Call
from postroom.inbox.handling.handlers import Registry
from postroom.inbox.handling.job import Job
from postroom.inbox.handling.outcome import Applied, GiveUp, TryAgain
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.inbox.handling.outcome import Outcome

APPLIED = Applied(handled=1, repeated=0)
AGAIN = TryAgain(after_seconds=0.0, counts=True, kind=Kind.OWN)


class Consumer:
    """What a runner asks of a consumer; it applies whatever it is given."""

    status = SimpleNamespace(subscription="s")

    def execute(self, job: Job) -> tuple[Outcome, None]:
        """Say that a job is applied."""
        job.call.end(APPLIED)
        return APPLIED, None


@pytest.fixture
def runner() -> Iterator[TaskRunner]:
    """Lend a runner of one thread, which knows a handler."""
    before = current_app._get_current_object()
    app: Any = Celery("unit", set_as_current=False)
    # As a worker does: what runs a task asks for it by its name.
    app.set_default()
    app.postroom = SimpleNamespace(settings=Settings(), consume={"s": ()})
    worker = SimpleNamespace(app=app, concurrency=1, hostname="unit@here", consumer=None)
    events: Any = SimpleNamespace(enabled=False, send=lambda *_args, **_fields: None)
    found = TaskRunner(worker, events)
    registry = Registry()
    handles("A", name="unit.h", into=registry)(lambda event: None)
    found.prepare(list(registry.handlers.values()))
    yield found
    found.stop()
    before.set_default()


def test_receivers_of_task_received_hold_up_the_handlers_thread_alone(runner: TaskRunner) -> None:
    """Not the dispatcher's, which is that of all events; the handler runs behind them."""
    threads, done = [], queue.SimpleQueue[Any]()

    def received(request: Any, **_: Any) -> None:
        threads.append((request.name, threading.current_thread()))

    registry = Registry()
    handles("A", name="unit.h", into=registry)(lambda event: None)
    job = Job(
        handler=registry.handlers["unit.h"],
        events=(Event(id="e1", name="A", data={}, topic="t"),),
        attempt=1,
        task_id="e1",
        topic="t",
        call=Call(),
    )
    consumer: Any = Consumer()
    signals.task_received.connect(received)
    try:
        runner.of(consumer).submit(job, done.put)
        assert done.get(timeout=10) == APPLIED
    finally:
        signals.task_received.disconnect(received)
    assert [name for name, _ in threads] == ["unit.h"]
    assert threads[0][1] is not threading.current_thread()


class Failing(Consumer):
    """One whose handlers fail, deep in a stack whose frames name the error."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def execute(self, job: Job) -> tuple[Outcome, BaseException]:  # type: ignore[override]
        """Say that a job is to be tried again, or is given up."""
        job.call.end(self._outcome)
        return self._outcome, self._met(job)

    def _met(self, job: Job) -> BaseException:
        try:
            Path("/nowhere", job.task_id).stat()
        except OSError as error:
            met = error
        return met


@pytest.mark.parametrize("consumer", [Consumer(), Failing(AGAIN), Failing(GiveUp("no"))])
def test_nothing_of_a_job_is_left_to_the_collector(runner: TaskRunner, consumer: Any) -> None:
    """A worker has thousands of them in a second, and the collector comes by once in many."""
    registry, done = Registry(), queue.SimpleQueue[Any]()
    handles("A", name="unit.h", into=registry)(lambda event: None)
    gc.collect()
    gc.disable()
    try:
        for number in range(3):
            job = Job(
                handler=registry.handlers["unit.h"],
                events=(Event(id=f"e{number}", name="A", data={}, topic="t"),),
                attempt=1,
                task_id=f"e{number}",
                topic="t",
                call=Call(),
            )
            runner.of(consumer).submit(job, done.put)
            done.get(timeout=10)
        del job
        wait_until(lambda: not left(), description="all are let go")
    finally:
        gc.enable()


def left() -> list[str]:
    """Name what is there of jobs and of errors."""
    of_jobs = Call, Job, Errand, adapter.EventRequest, Placement, Turn, ExceptionInfo
    return [type(each).__name__ for each in gc.get_objects() if type(each) in of_jobs]


class Nested:
    """An errand that may run another one within it, and notes how deep the stack is."""

    def __init__(self, task: Task, sizes: list[int], inner: Any = None) -> None:
        self.task, self.sizes, self.inner = task, sizes, inner

    def execute(self) -> tuple[Outcome, None]:
        """Run what is within it, and apply it."""
        self.sizes.append(len(self.task.request_stack))
        if self.inner is not None:
            self.inner()
        return APPLIED, None


def call(runner: TaskRunner, task_id: str, errand: Nested) -> Any:
    """Return the call of a handler's task with an errand."""
    made = runner._requests[errand.task.name].make(
        task_id=task_id,
        retries=0,
        shown={},
        kwargsrepr="{}",
        routing_key="t",
        cargo=errand,
        carried={},
    )
    return adapter.reserve(made)


@contextmanager
def guarded(app: Celery) -> Iterator[None]:
    """Guard the stack of requests, as a worker does."""
    trace.setup_worker_optimizations(app, "unit@here")
    try:
        yield
    finally:
        trace.reset_worker_optimizations(app)


@contextmanager
def watched(seen: list[str], like: Callable[..., Any]) -> Iterator[None]:
    """Have an agent put itself before each call of a task."""
    own = Task.__call__

    def agents(task: Task, *args: Any, **kwargs: Any) -> Any:
        seen.append(task.request.id)
        return own(task, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "__call__", like(own)(agents))
        yield


def test_a_task_within_a_task_has_one_request_as_any_other(runner: TaskRunner) -> None:
    """In a worker, where Celery's own call makes it anew for each member of a group but one."""
    app, sizes = runner._worker.app, list[int]()
    task = app.tasks["unit.h"]
    with guarded(app):
        adapter.trace_in(app, task, "unit@here")
        second = call(runner, "2", Nested(task, sizes, call(runner, "3", Nested(task, sizes))))
        call(runner, "1", Nested(task, sizes, second))()
    assert sizes == [1, 2, 3]


@pytest.mark.parametrize("like", [functools.wraps, lambda _: lambda agents: agents])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_agent_before_celerys_own_call_sees_a_handlers_tasks(
    runner: TaskRunner, like: Callable[..., Any], *, is_first: bool
) -> None:
    """All of them, or those within another one where Celery itself goes past it for the rest."""
    app, sizes, seen = runner._worker.app, list[int](), list[str]()
    contexts = [guarded(app), watched(seen, like)]
    with ExitStack() as stack:
        for each in reversed(contexts) if is_first else contexts:
            stack.enter_context(each)
        registry = Registry()
        handles("A", name="unit.seen", into=registry)(lambda event: None)
        runner.prepare(list(registry.handlers.values()))
        task = app.tasks["unit.seen"]
        call(runner, "1", Nested(task, sizes, call(runner, "2", Nested(task, sizes))))()
    assert len(sizes) == 2
    assert len(seen) == (1 if is_first else 2)
