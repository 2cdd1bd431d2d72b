"""Job: what a thread needs to call a handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from postroom.events import Event
    from postroom.inbox.handling.call import Call
    from postroom.inbox.handling.handlers import Handler

__all__ = ["Job"]


class Job(NamedTuple):
    """A handler, the events to hand to it, and the call that may be cut off.

    Frozen: the dispatcher makes it, a thread of the runner runs it, neither changes it. `since` is
    when conflicts of the first event began that nothing here explains. What is `noted` may have
    been held by a worker that ended, and leaves a trace while it runs; what is `alone` was, and
    nothing else runs beside it. What `contends` has been in the way of others of its handler.
    A group's has `members`, a job for each event, which have its call; they share its transaction.
    """

    handler: Handler
    events: tuple[Event[dict[str, Any]], ...]
    attempt: int
    task_id: str
    topic: str
    call: Call
    since: datetime | None = None
    noted: bool = False
    alone: bool = False
    contends: bool = False
    members: tuple[Job, ...] = ()

    # Two of the same content are two: an event may come twice within a group.

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)
