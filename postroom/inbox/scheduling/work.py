"""Work: deliveries that a handler is to be called with, once more or for the first time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from postroom.inbox.handling import task_ids
from postroom.inbox.handling.call import Call
from postroom.inbox.handling.job import Job
from postroom.inbox.handling.outcome import Applied, GiveUp, Undone
from postroom.inbox.scheduling.held import Failures
from postroom.store.inbox_rows import identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.handling.outcome import Shared
    from postroom.inbox.handling.standstill import Standstill
    from postroom.inbox.scheduling.held import Held

__all__ = ["Work"]


class Work(NamedTuple):
    """A handler and the deliveries to hand to it together.

    `then` are the other parts of a batch that was split, or the later events of the key in a group
    that was, to be done after this one. What is to be
    done `alone` is a suspect.
    """

    handler: Handler
    deliveries: Sequence[Held]
    attempt: int = 1
    then: Sequence[Sequence[Held]] = ()
    alone: bool = False

    def again(self, *, counts: bool) -> Work:
        """Return it for another try."""
        return self._replace(attempt=self.attempt + counts)

    def isolated(self) -> Work:
        """Return it to be done while nothing else is under way."""
        return self._replace(alone=True)

    def halved(self) -> Work:
        """Return its first half, with the second one behind it since they may share a key."""
        half = len(self.deliveries) // 2
        first, second = self.deliveries[:half], self.deliveries[half:]
        return self._replace(deliveries=first, attempt=1, then=[second, *self.then])

    def following(self) -> Work | None:
        """Return what is to be done after it."""
        if not self.then:
            return None
        following, *rest = self.then
        attempt = 1 + _failures(following[0], self.handler).attempts
        return self._replace(deliveries=following, attempt=attempt, then=rest, alone=False)

    @property
    def is_group(self) -> bool:
        """Whether several events share a transaction, each in a task of its own."""
        return len(self.deliveries) > 1 and not self.handler.batched

    @property
    def wait_seconds(self) -> float:
        """How long it is until its first event may be tried again."""
        return _failures(self.deliveries[0], self.handler).due - time.monotonic()

    def of(self, *deliveries: Held) -> Work:
        """Return it for one event of a group, or some."""
        return self._replace(deliveries=deliveries, then=())

    def goes_on_together(self, shared: Shared) -> bool:
        """Say whether what is left of a group is to be a group again.

        So it is where nothing has failed and at least half of it was done in time. By themselves
        the events of slow handlers find several threads.
        """
        left = [each for each in shared.outcomes if not isinstance(each, (Applied, GiveUp))]
        unbegun = all(isinstance(each, Undone) and each.unbegun for each in left)
        return bool(left) and unbegun and len(left) <= len(shared.outcomes) // 2

    def applied(self, outcome: Applied | Shared) -> tuple[Sequence[Held], Applied]:
        """Return what is applied of it, and how much of that was not before."""
        if isinstance(outcome, Applied):
            return self.deliveries, outcome
        both = zip(self.deliveries, outcome.outcomes, strict=True)
        found = [(held, each) for held, each in both if isinstance(each, Applied)]
        handled = sum(each.handled for _, each in found)
        done = [held for held, _ in found]
        return done, Applied(handled=handled, repeated=len(done) - handled)

    def apart(self, deliveries: Iterable[Held] | None = None) -> list[Work]:
        """Return the events of a group, or these of them, each by itself.

        Those of one key one after another.
        """
        chains: dict[object, list[Held]] = {}
        for held in self.deliveries if deliveries is None else deliveries:
            chains.setdefault(held if held.key is None else held.key, []).append(held)
        return [
            self._replace(deliveries=(first,), then=[(held,) for held in behind])
            for first, *behind in chains.values()
        ]

    def job(
        self, *, limit_seconds: float, contends: bool = False, standstill: Standstill | None = None
    ) -> Job:
        """Return what a thread needs to do it, within this time."""
        call = Call(self.handler.timeout_seconds or limit_seconds, standstill=standstill)
        whole = self._job(self.deliveries, call, contends=contends)
        if not self.is_group:
            return whole
        members = tuple(self._job((held,), call, contends=contends) for held in self.deliveries)
        return whole._replace(members=members)

    def _job(self, deliveries: Sequence[Held], call: Call, *, contends: bool) -> Job:
        first = deliveries[0]
        failures = first.failures.get(self.handler.name)
        return Job(
            handler=self.handler,
            events=tuple([held.event for held in deliveries if held.event is not None]),
            attempt=self.attempt,
            task_id=self._task_id(deliveries),
            topic=first.delivery.place[0],
            since=failures.conflicts_since if failures else None,
            noted=True in [held.noted for held in deliveries],
            alone=self.alone,
            contends=contends,
            call=call,
        )

    def _task_id(self, deliveries: Sequence[Held]) -> str:
        # The event's id, with the handler's name where there are several.
        first = deliveries[0]
        own = identity(first.delivery.event_id)
        if first.delivery.is_redriven:
            # A task of its own: the first one may have been revoked, which every worker remembers.
            own = f"{own}~{first.delivery.place[1]}:{first.delivery.place[2]}"
        if len(deliveries) > 1:
            return f"{own}+{len(deliveries) - 1}"
        return task_ids.of_handler(own, self.handler.name, alone=len(first.handlers) == 1)


def _failures(held: Held, handler: Handler) -> Failures:
    return held.failures.get(handler.name) or Failures()
