"""Sources: every topic of a subscription, each on its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from postroom import errors, tracing, wire
from postroom.access.client import access_of
from postroom.inbox.receiving.keeper import Keeper
from postroom.topics import base_topic

if TYPE_CHECKING:
    from collections.abc import Callable

    import pulsar

    from postroom.inbox.receiving.feed import Feed
    from postroom.inbox.receiving.lookout import Lookout
    from postroom.inbox.receiving.source import Source
    from postroom.inbox.receiving.troubles import Troubles
    from postroom.topics import Topic

__all__ = ["Sources"]

# Messages in the client's queues, all topics together: it bounds their number, never their size.
RECEIVER_QUEUE = 100
REDRIVE_QUEUE = 10
# Topics that have a thread each to receive in.
MOST_THREADS = 64
TICK_SECONDS = 0.05
STOP_SECONDS = 1.0


class Sources:
    """Has keepers open what the lookout finds, and looks after them in a thread of its own.

    A topic that cannot be read waits, is said and tried again; no other topic waits for it.
    `source` makes what reads a topic. `changed` is told in that thread how many topics are open,
    and of how many that fit, once each was tried, less those through which dead letters come back.
    Which topics there are that thread alone changes; those that open one count them.
    """

    def __init__(
        self,
        client: pulsar.Client,
        lookout: Lookout,
        feed: Feed,
        *,
        source: Callable[[Topic], Source],
        prefetch: int,
        troubles: Troubles,
        changed: Callable[[int, int], None],
    ) -> None:
        self._client = client
        self._lookout = lookout
        self._feed = feed
        self._source = source
        self._most_queued = min(RECEIVER_QUEUE, prefetch)
        self._troubles = troubles
        self._changed = changed
        self._keepers: dict[Topic, Keeper] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=tracing.silently(self._run), name="consumer-sources", daemon=True
        )

    def start(self) -> None:
        """Begin to read."""
        self._lookout.start()
        self._thread.start()

    def stop(self) -> None:
        """Receive nothing more; what was received may still be acknowledged."""
        self._stopped.set()
        self._lookout.stop()
        self._feed.stop()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(TICK_SECONDS):
            wanted = self._lookout.wanted
            if wanted is not None:
                self._follow(wanted)
            for keeper in self._keepers.values():
                keeper.tend()
            if wanted is not None and all(k.was_tried for k in self._keepers.values()):
                self._changed(*self._reading)
            self._troubles.say()

    @property
    def _reading(self) -> tuple[int, int]:
        # What comes back of the dead letters alone is no reason to say that all is well.
        reading = [
            keeper.is_reading
            for topic, keeper in self._keepers.items()
            if not base_topic(topic).endswith(wire.REDRIVE)
        ]
        return sum(reading), len(reading)

    def _follow(self, wanted: frozenset[Topic]) -> None:
        for topic in wanted - self._keepers.keys():
            self._keepers[topic] = Keeper(
                self._source(topic),
                access=access_of(self._client),
                open_=self._open,
                troubles=self._troubles,
            )
        # One that was deleted would be made anew by subscribing to it.
        for topic in self._keepers.keys() - wanted:
            if self._keepers[topic].give_up():
                del self._keepers[topic]

    def _open(self, source: Source) -> None:
        if len(found := self._client.get_topic_partitions(source.topic)) > 1:
            # The client would read them by one queue, which grows with each connection.
            raise errors.ServiceUnavailable(f"it has {len(found)} topic partitions since a moment")
        source.open(
            self._client,
            queue_size=self._queue_size(source.topic),
            own_thread=len(self._keepers) <= MOST_THREADS,
        )

    def _queue_size(self, topic: Topic) -> int:
        if base_topic(topic).endswith(wire.REDRIVE):
            return min(REDRIVE_QUEUE, self._most_queued)
        main = sum(not base_topic(each).endswith(wire.REDRIVE) for each in tuple(self._keepers))
        return max(1, self._most_queued // max(1, main))
