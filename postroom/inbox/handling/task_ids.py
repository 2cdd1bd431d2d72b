"""Task ids: under which id a handler runs for an event, as Flower has it."""

from __future__ import annotations

__all__ = ["of_handler", "of_subscription"]


def of_handler(event: str, handler: str, *, alone: bool) -> str:
    """Return the event's id, with the handler's name unless the event has that handler alone."""
    return event if alone else f"{event}:{handler}"


def of_subscription(task_id: str, subscription: str, *, alone: bool) -> str:
    """Return a task's id, with the subscription unless it is the application's only one.

    Two subscriptions of one application may read the same event.
    """
    return task_id if alone else f"{task_id}@{subscription}"
