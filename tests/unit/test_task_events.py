"""Whether Flower hears of handlers is decided where Celery decides it for any task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.events import EventDispatcher
from celery.worker import control

from postroom.celery.task_events import TaskEvents


def worker(*, task_events: bool, groups: list[str] | None) -> Any:
    """Return a worker with Celery's own dispatcher, which is not connected."""
    app = Celery("events", broker="memory://")
    dispatcher = EventDispatcher(None, app=app, enabled=False, groups=groups)
    consumer = SimpleNamespace(event_dispatcher=dispatcher)
    return SimpleNamespace(app=app, hostname="here", task_events=task_events, consumer=consumer)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_setting_decides_until_celery_is_connected(wanted: bool) -> None:  # noqa: FBT001
    """By -E or worker_send_task_events; nothing waits that nobody wants."""
    made = worker(task_events=wanted, groups=None)
    made.consumer = None
    events = TaskEvents(made)
    events.send("task-received", uuid="1")
    assert events.enabled is wanted
    assert len(events._waiting) == wanted


def test_remote_control_is_obeyed_also_through_an_outage() -> None:
    """`enable_events` and `disable_events`, as they are for any task; kept while Redis is away."""
    made = worker(task_events=False, groups=["worker"])
    events = TaskEvents(made)
    found = [events.enabled]
    control.enable_events(made)
    found.append(events.enabled)
    dispatcher, made.consumer.event_dispatcher = made.consumer.event_dispatcher, None
    found.append(events.enabled)
    made.consumer.event_dispatcher = dispatcher
    control.disable_events(made)
    found.append(events.enabled)
    assert found == [False, True, True, False]
