"""Queues: the names by which `-Q` asks for a relay or a consumer instead of the queue's tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom import errors
from postroom.celery import adapter

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Queue", "Queues"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A name of ours: alone, or with a dot and what is wanted in particular behind it."""

    name: str

    def owns(self, queue: str) -> bool:
        """Say whether a queue is this one."""
        return queue == self.name or queue.startswith(f"{self.name}.")

    def wanted(self, queues: set[str]) -> list[str | None]:
        """Return what is wanted of it in particular, in order; None for the name alone."""
        ours = sorted(filter(self.owns, queues))
        return [queue[len(self.name) + 1 :] if queue != self.name else None for queue in ours]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queues:
    """The queue of the relays and the queue of the consumers."""

    relay: Queue = Queue(name="relay")
    consumer: Queue = Queue(name="consumer")

    def require_free(self, app: Celery) -> None:
        """Refuse a worker of a queue that the application uses for tasks of its own.

        Raises:
            ConfigurationError: it does; the message says how to give ours another name.

        """
        own = _own_queues(app) & adapter.queues(app)
        for kind, queue in (("relay", self.relay), ("consumer", self.consumer)):
            taken = sorted(filter(queue.owns, own))
            if taken:
                raise errors.ConfigurationError(
                    f"The application has a queue {taken[0]!r} of its own, and a worker of that "
                    f"name is postroom's {kind}: give postroom's another name with "
                    f"install({kind}_queue=…)"
                )


def _own_queues(app: Celery) -> set[str]:
    """Name the queues that the application's configuration has tasks for."""
    conf = app.conf
    own = {str(conf.task_default_queue)}
    # Where no queue may be made by naming it, ours has to be among them.
    if conf.task_create_missing_queues:
        declared = conf.task_queues or ()
        own |= {str(getattr(queue, "name", queue)) for queue in declared}
    routes = conf.task_routes or ()
    for route in routes if isinstance(routes, (list, tuple)) else [routes]:
        for target in route.values() if isinstance(route, Mapping) else ():
            queue = target.get("queue") if isinstance(target, Mapping) else target
            own.add(str(getattr(queue, "name", queue)))
    return own
