"""Backlog: what waits for one handler, in the order of its keys."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from postroom.inbox.delivery import Delivery
    from postroom.inbox.handlers import Handler

__all__ = ["Backlog"]


class Backlog:
    """Deliveries for one handler: of a key one after another, of different keys side by side.

    A key from which deliveries were taken is busy until release(): what comes later waits behind,
    also while an earlier delivery is being retried. A delivery without a key waits for nothing.
    """

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self._queues: dict[Hashable, deque[Delivery]] = {}
        self._ready: deque[Hashable] = deque()
        self._busy: set[Hashable] = set()

    def add(self, delivery: Delivery) -> None:
        """Queue a delivery behind the others of its key."""
        key = _key(delivery)
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque((delivery,))
            if key not in self._busy:
                self._ready.append(key)
        else:
            queue.append(delivery)

    def take(self) -> list[Delivery]:
        """Take up to a batch of deliveries whose turn it is; their keys are busy then."""
        taken: list[Delivery] = []
        while self._ready and len(taken) < self.handler.batch:
            key = self._ready.popleft()
            queue = self._queues[key]
            while queue and len(taken) < self.handler.batch:
                taken.append(queue.popleft())
            if not queue:
                del self._queues[key]
            self._busy.add(key)
        return taken

    def release(self, deliveries: Iterable[Delivery], waiting: Iterable[Delivery] = ()) -> None:
        """Let the next of these deliveries' keys have their turn, but for those in `waiting`."""
        released = {_key(delivery) for delivery in deliveries}
        for key in released - {_key(delivery) for delivery in waiting}:
            self._busy.discard(key)
            if key in self._queues:
                self._ready.append(key)

    @property
    def ready(self) -> bool:
        """Whether there is something to take."""
        return bool(self._ready)


def _key(delivery: Delivery) -> Hashable:
    return id(delivery) if delivery.key is None else delivery.key
