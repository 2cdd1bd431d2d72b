"""KeyQueues: what waits to be handled, in the order of its keys."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.scheduling.held import Held

__all__ = ["KeyQueues", "Portion", "Threads"]


class Portion(NamedTuple):
    """A handler, and the deliveries to hand to it together."""

    handler: Handler
    deliveries: list[Held]


class Threads(NamedTuple):
    """How many threads handle, how many of them are free, and what the others have in groups."""

    number: int = 1
    free: int = 1
    in_groups: int = 0

    def part(self, waiting: int) -> int:
        """Return how much of what waits one thread may take together.

        Its part of what waits and of what others have in groups: behind a moment in which MongoDB
        stood still all come free at once, and the first one would take what waits for the others;
        at a long backlog the others have their part already. And never what a free thread could do
        beside it.
        """
        fair = _share(waiting + self.in_groups, self.number)
        return min(fair, _share(waiting, self.free))


class KeyQueues:
    """Deliveries of one key one after another, of different keys side by side.

    A key is busy from take() until everything taken of it is done(), by all of its handlers: what
    comes later waits behind, also while an earlier delivery is being retried. A delivery without a
    key waits for nothing.
    """

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[Held]] = {}
        self._ready: deque[Hashable] = deque()
        self._unfinished: dict[Hashable, int] = {}

    def __bool__(self) -> bool:
        """Say whether there is something to take."""
        return bool(self._ready)

    def add(self, delivery: Held) -> None:
        """Queue a delivery, which knows its handlers, behind the others of its key."""
        key = _key(delivery)
        queue = self._queues.setdefault(key, deque())
        queue.append(delivery)
        if len(queue) == 1 and key not in self._unfinished:
            self._ready.append(key)

    def take(self, threads: Threads | None = None) -> list[Portion]:
        """Take the delivery whose turn it is, for each of its handlers.

        For a handler that takes several together and wants it alone, also those behind it and at
        the head of other keys that this handler alone wants: for a batch up to its size; for a
        group no more keys than are one thread's part, since what is handled one after another
        could be handled side by side.
        """
        first = self._queues[self._ready[0]][0]
        if len(first.handlers) == 1 and (handler := first.handlers[0]).together > 1:
            keys = (
                len(self._ready)
                if handler.batched
                else (threads or Threads()).part(len(self._ready))
            )
            return [Portion(handler, self._several(handler, keys))]
        self._pop(self._ready.popleft())
        return [Portion(handler, [first]) for handler in first.handlers]

    def _several(self, handler: Handler, keys: int) -> list[Held]:
        taken: list[Held] = []
        together = handler.together
        # After-effects of a group come in no order, so that each is another key's.
        most_of_a_key = 1 if handler.after_commit and not handler.batched else together
        for _ in range(len(self._ready)):
            key = self._ready.popleft()
            queue, before = self._queues[key], len(taken)
            room = min(before + most_of_a_key, together)
            while queue and len(taken) < room and queue[0].handlers == [handler]:
                taken.append(self._pop(key))
            if len(taken) == before:
                self._ready.append(key)
            else:
                keys -= 1
            if not keys or len(taken) == together:
                break
        return taken

    def _pop(self, key: Hashable) -> Held:
        queue = self._queues[key]
        self._unfinished[key] = self._unfinished.get(key, 0) + 1
        delivery = queue.popleft()
        if not queue:
            del self._queues[key]
            # `queue` stays empty for the one who loops over it.
        return delivery

    def done(self, delivery: Held) -> None:
        """Note that all handlers are done with a delivery; its key's next one may follow."""
        if not delivery.handlers:  # it was never queued: nobody wants it, or it is no event
            return
        key = _key(delivery)
        self._unfinished[key] -= 1
        if self._unfinished[key]:
            return
        del self._unfinished[key]
        if key in self._queues:
            self._ready.append(key)


def _share(of: int, among: int) -> int:
    return -(-of // max(1, among))


def _key(delivery: Held) -> Hashable:
    key = delivery.key
    return id(delivery) if key is None else key
