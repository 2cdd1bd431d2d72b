"""Witness: what each topic holds, read as it comes, so that no topic has to keep it."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pulsar

from tests.chaos.clients import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["SUBSCRIPTION", "Witness"]

SUBSCRIPTION = "witness"
# A client is made anew rather than waited for: its own waits grow to a minute.
IDLE_SECONDS = 5.0
RECEIVE_MS = 300
ACKNOWLEDGED_EVERY = 200

Place = tuple[int, int, int]


class Witness:
    """Reads topics to their ends, each in a thread; what is delivered again is told by its place.

    `told` gets the ids of new messages as they come.
    """

    def __init__(
        self, url: str, topics: Sequence[str], told: Callable[[Iterable[str]], None]
    ) -> None:
        self.events: dict[str, list[str]] = {topic: [] for topic in topics}
        self._url, self._told = url, told
        self._over = threading.Event()
        with contextlib.closing(connect(url)) as client:
            for topic in topics:
                self._subscribe(client, topic).close()
        self._threads = [
            threading.Thread(target=self._read, args=(t,), daemon=True) for t in topics
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Read no further."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _subscribe(self, client: pulsar.Client, topic: str) -> pulsar.Consumer:
        return client.subscribe(
            topic, SUBSCRIPTION, initial_position=pulsar.InitialPosition.Earliest
        )

    def _read(self, topic: str) -> None:
        last: Place = (-1, -1, -1)
        while not self._over.is_set():
            with contextlib.suppress(pulsar.PulsarException):
                client = connect(self._url)
                try:
                    last = self._take(self._subscribe(client, topic), topic, last)
                finally:
                    client.close()
            self._over.wait(0.3)

    def _take(self, consumer: pulsar.Consumer, topic: str, last: Place) -> Place:
        """Take what comes until nothing does, or the connection is lost."""
        heard = time.monotonic()
        taken: list[pulsar.Message] = []
        while not self._over.is_set() and time.monotonic() - heard < IDLE_SECONDS:
            try:
                message = consumer.receive(timeout_millis=RECEIVE_MS)
            except pulsar.Timeout:
                continue
            except pulsar.PulsarException:
                break
            heard = time.monotonic()
            found = message.message_id()
            place = (found.ledger_id(), found.entry_id(), found.batch_index())
            if place > last:
                last = place
                event_id = message.properties()["id"]
                self.events[topic].append(event_id)
                self._told([event_id])
            taken.append(message)
            if len(taken) == ACKNOWLEDGED_EVERY:
                consumer.acknowledge_cumulative(taken.pop())
                taken.clear()
        if taken:
            consumer.acknowledge_cumulative(taken.pop())
        return last
