"""Destinations: the queues to which an application sends tasks, as far as that can be told.

Asked as Celery asks when it sends one: what the task says of itself, annotations included, and then
the routes in their order. `tests/unit/test_celery_adapter.py` names what is used of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

__all__ = ["queues_of_tasks"]

BUILT_IN = "celery."


def queues_of_tasks(app: Celery) -> set[str]:
    """Name the queues that the application has tasks for: registered, routed or scheduled ones.

    What a call names beside the task, as `apply_async(queue=…)`, nobody can tell beforehand.
    """
    conf = app.conf
    own = {str(conf.task_default_queue)}
    # Where no queue may be made by naming it, ours has to be among them.
    if conf.task_create_missing_queues:
        own |= {_name(queue) for queue in conf.task_queues or ()}
    own |= set(_written(conf.task_routes))
    for entry in dict(conf.beat_schedule or {}).values():
        options = entry.get("options") if isinstance(entry, Mapping) else None
        own |= set(_queue_in(options or getattr(entry, "options", None)))
    for name, task in app.tasks.items():
        if not name.startswith(BUILT_IN):
            own |= set(_named_by(task) or _routed(app, name, task))
    return own


def _named_by(task: Any) -> list[str]:
    with warnings.catch_warnings():
        # Celery warns of whoever looks at it, and still sends tasks there.
        warnings.simplefilter("ignore")
        return _queue_in({"queue": getattr(task, "queue", None)})


def _routed(app: Celery, name: str, task: Any) -> list[str]:
    try:
        return _queue_in(app.amqp.router.lookup_route(name, (), {}, {}, task))
    except Exception:  # noqa: BLE001 - a router of the application's that wants to see arguments
        return []


def _written(routes: Any) -> Iterator[str]:
    """Yield the queues that routes name as they are written, of tasks that are not here too."""
    if isinstance(routes, Mapping):
        for target in routes.values():
            yield from _queue_in(target)
    elif isinstance(routes, (list, tuple)):
        for route in routes:
            if _is_pair(route):
                yield from _queue_in(route[1])
            else:
                yield from _written(route)


def _is_pair(route: Any) -> bool:
    return (
        isinstance(route, (list, tuple))
        and len(route) == 2
        and not isinstance(route[0], (Mapping, list, tuple))
        and not callable(route[0])
    )


def _queue_in(target: Any) -> list[str]:
    """Return the queue that a route, or options, name: one at most."""
    if isinstance(target, Iterable) and not isinstance(target, (str, Mapping)):
        try:
            target = dict(target)
        except (TypeError, ValueError):
            return []
    queue = target.get("queue") if isinstance(target, Mapping) else target
    return [] if queue is None or queue == "" else [_name(queue)]


def _name(queue: Any) -> str:
    return str(getattr(queue, "name", queue))
