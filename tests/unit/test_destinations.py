"""Queues that an application uses for tasks are not taken for postroom's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from kombu.entity import Queue as KombuQueue

from postroom import ConfigurationError
from postroom.celery.destinations import queues_of_tasks
from postroom.celery.queues import Queues

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN = "consumer"


@pytest.fixture
def app() -> Iterator[Celery]:
    """Lend an application with a task of its own, and let it go."""
    made = Celery("own", set_as_current=False)
    made.task(name="own.note", shared=False)(note)
    yield made
    made.close()


def note() -> None:
    """Do nothing."""


def queue_of(name: str) -> Any:
    """Make a queue as kombu has them."""
    kind: Any = KombuQueue
    return kind(name)


class Router:
    """A router of the form before Celery 4."""

    def route_for_task(self, *_: Any) -> dict[str, str]:
        """Route all tasks."""
        return {"queue": OWN}


def routed(name: str, *_: Any, **_options: Any) -> dict[str, str] | None:
    """Route one task."""
    return {"queue": OWN} if name == "own.note" else None


@pytest.mark.parametrize(
    "configuration",
    [
        {"task_default_queue": OWN},
        {"task_queues": [queue_of(OWN)]},
        {"task_routes": {"other.*": OWN}},
        {"task_routes": {"other.*": {"queue": OWN}}},
        {"task_routes": {"other.*": {"queue": queue_of(OWN)}}},
        {"task_routes": [{"a": "b"}, {"other.*": {"queue": OWN}}]},
        {"task_routes": ([("a", "b"), ("other.*", {"queue": OWN})],)},
        {"task_routes": [[("other.*", OWN)]]},
        {"task_routes": {"other.*": (("queue", OWN),)}},
        {"task_routes": routed},
        {"task_routes": [routed]},
        {"task_routes": (Router(),)},
        {"task_routes": "tests.unit.test_destinations.routed"},
        {"task_annotations": {"own.note": {"queue": OWN}}},
        {"task_annotations": {"*": {"queue": OWN}}},
        {"beat_schedule": {"x": {"task": "t", "schedule": 9, "options": {"queue": OWN}}}},
    ],
)
def test_a_queue_that_tasks_are_sent_to_is_seen(app: Celery, configuration: dict[str, Any]) -> None:
    """However the application says it: where Celery would send them."""
    app.conf.update(configuration)
    assert OWN in queues_of_tasks(app)
    app.amqp.queues.select(OWN)
    with pytest.raises(ConfigurationError, match="has a queue 'consumer' of its own"):
        Queues().require_free(app)


@pytest.mark.filterwarnings("ignore::celery.exceptions.CDeprecationWarning")
def test_a_queue_that_a_task_names_is_seen(app: Celery) -> None:
    """By @app.task(queue=…)."""
    app.task(name="own.other", queue=OWN, shared=False)(note)
    assert OWN in queues_of_tasks(app)


def test_what_is_sent_elsewhere_is_no_obstacle(app: Celery) -> None:
    """A router that fails without arguments neither, and none of the queues is made by looking."""

    def failing(*_: Any, **_options: Any) -> None:
        raise LookupError

    app.conf.task_routes = [failing, {"own.*": "elsewhere"}]
    app.amqp.queues.select(OWN)
    before = set(app.amqp.queues)
    assert queues_of_tasks(app) == {"celery", "elsewhere"}
    Queues().require_free(app)
    assert set(app.amqp.queues) == before


@pytest.mark.parametrize(
    ("given", "is_meant"),
    [
        ("relay", True),
        ("relay.Orders", True),
        ("consumer.Billing", True),
        ("relays", True),
        ("Own", True),
        ("relay ", False),
        (" relay", False),
        ("relay\n", False),
        ("Relay", False),
        ("RELAY.0", False),
        (" consumer.billing", False),
    ],
)
def test_a_queue_that_was_meant_to_be_ours_is_told(
    app: Celery, given: str, *, is_meant: bool
) -> None:
    """Its worker would wait for tasks that nobody sends, and relay nothing."""
    app.conf.task_routes = {"own.*": "Own"}
    app.amqp.queues.select(["celery", given])
    if is_meant:
        Queues().require_free(app)
        return
    with pytest.raises(ConfigurationError) as refused:
        Queues().require_free(app)
    assert str(refused.value).startswith(f"-Q {given!r} is no queue of postroom's")
    assert "\n" not in str(refused.value)


def test_a_queue_of_the_applications_own_may_have_capitals(app: Celery) -> None:
    """Tasks are sent to it, so that somebody means it."""
    app.conf.task_routes = {"own.*": "Relay"}
    app.amqp.queues.select(["Relay"])
    Queues().require_free(app)
