"""Queues: the names by which `-Q` asks for a relay or a consumer instead of the queue's tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom import errors
from postroom.celery import adapter, destinations

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

        One of a queue that differs from ours by blanks or capitals alone would wait for tasks that
        nobody sends, and neither relay nor consume: it is refused as well.

        Raises:
            ConfigurationError: it does; the message says how to give ours another name.

        """
        of_tasks = destinations.queues_of_tasks(app)
        self._require_meant(adapter.queues(app) - of_tasks)
        own = of_tasks & adapter.queues(app)
        for kind, queue in (("relay", self.relay), ("consumer", self.consumer)):
            taken = sorted(filter(queue.owns, own))
            if taken:
                raise errors.ConfigurationError(
                    f"The application has a queue {taken[0]!r} of its own, and a worker of that "
                    f"name is postroom's {kind}: give postroom's another name with "
                    f"install({kind}_queue=…)"
                )

    def _require_meant(self, given: set[str]) -> None:
        for name in sorted(given):
            meant = name.strip().lower()
            for kind, queue in (("relay", self.relay), ("consumer", self.consumer)):
                if queue.owns(meant) and not queue.owns(name):
                    raise errors.ConfigurationError(
                        f"-Q {name!r} is no queue of postroom's {kind}, nor one that the "
                        f"application sends tasks to: write -Q {queue.name} as it is, without "
                        "blanks and capitals, and several with a comma alone between them."
                    )
