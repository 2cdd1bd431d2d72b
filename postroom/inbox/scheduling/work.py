"""Work: deliveries that a handler is to be called with, once more or for the first time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from postroom.inbox.handling import task_ids
from postroom.inbox.handling.call import Call
from postroom.inbox.handling.job import Job
from postroom.store.inbox_rows import identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.handling.pulse import Pulse
    from postroom.inbox.scheduling.held import Held

__all__ = ["Work"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """A handler and the deliveries to hand to it together.

    `then` are the other parts of a batch that was split, to be done after this one. What is to be
    done `alone` is a suspect.
    """

    handler: Handler
    deliveries: Sequence[Held]
    attempt: int = 1
    then: Sequence[Sequence[Held]] = ()
    alone: bool = False

    def again(self, *, counts: bool) -> Work:
        """Return it for another try."""
        return replace(self, attempt=self.attempt + counts)

    def isolated(self) -> Work:
        """Return it to be done while nothing else is under way."""
        return replace(self, alone=True)

    def halved(self) -> Work:
        """Return its first half, with the second one behind it since they may share a key."""
        half = len(self.deliveries) // 2
        first, second = self.deliveries[:half], self.deliveries[half:]
        return replace(self, deliveries=first, attempt=1, then=[second, *self.then])

    def following(self) -> Work | None:
        """Return what is to be done after it."""
        if not self.then:
            return None
        following, *rest = self.then
        return replace(self, deliveries=following, attempt=1, then=rest, alone=False)

    def job(
        self, *, limit_seconds: float, contends: bool = False, pulse: Pulse | None = None
    ) -> Job:
        """Return what a thread needs to do it, within this time."""
        first = self.deliveries[0]
        failures = first.failures.get(self.handler.name)
        return Job(
            handler=self.handler,
            events=tuple(held.event for held in self.deliveries if held.event is not None),
            attempt=self.attempt,
            task_id=self._task_id(),
            topic=first.delivery.place[0],
            since=failures.conflicts_since if failures else None,
            noted=any(held.noted for held in self.deliveries),
            alone=self.alone,
            contends=contends,
            call=Call(self.handler.timeout_seconds or limit_seconds, pulse=pulse),
        )

    def _task_id(self) -> str:
        # The event's id, with the handler's name where there are several.
        first = self.deliveries[0]
        own = identity(first.delivery.event_id)
        if first.delivery.is_redriven:
            # A task of its own: the first one may have been revoked, which every worker remembers.
            own = f"{own}~{first.delivery.place[1]}:{first.delivery.place[2]}"
        if len(self.deliveries) > 1:
            return f"{own}+{len(self.deliveries) - 1}"
        return task_ids.of_handler(own, self.handler.name, alone=len(first.handlers) == 1)
