"""The runner of handlers' tasks, without a worker around it."""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, current_app, signals
from celery.app import trace

from postroom import Event, Settings, handles
from postroom.celery import adapter
from postroom.celery.runner import TaskRunner
from postroom.inbox.handling.call import Call
from postroom.inbox.handling.handlers import Registry
from postroom.inbox.handling.job import Job
from postroom.inbox.handling.outcome import Applied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.inbox.handling.outcome import Outcome

APPLIED = Applied(handled=1, repeated=0)


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


def test_a_task_within_a_task_has_one_request_as_any_other(runner: TaskRunner) -> None:
    """In a worker, where Celery's own call makes it anew for each member of a group but one."""
    app = runner._worker.app
    sizes: list[int] = []

    class Nested:
        def __init__(self, inner: Any = None) -> None:
            self.inner = inner

        def execute(self) -> tuple[Outcome, None]:
            sizes.append(len(app.tasks["unit.h"].request_stack))
            if self.inner is not None:
                self.inner()
            return APPLIED, None

    def call(task_id: str, errand: Nested) -> Any:
        made = runner._requests["unit.h"].make(
            task_id=task_id,
            retries=0,
            shown={},
            kwargsrepr="{}",
            routing_key="t",
            cargo=errand,
            carried={},
        )
        return adapter.reserve(made)

    trace.setup_worker_optimizations(app, "unit@here")
    try:
        adapter.trace_in(app, app.tasks["unit.h"], "unit@here")
        call("1", Nested(call("2", Nested(call("3", Nested())))))()
    finally:
        trace.reset_worker_optimizations(app)
    assert sizes == [1, 2, 3]
