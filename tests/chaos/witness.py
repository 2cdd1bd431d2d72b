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
    from pathlib import Path
    from typing import TextIO

__all__ = ["SUBSCRIPTION", "Witness"]

SUBSCRIPTION = "witness"
# A client is made anew rather than waited for: its own waits grow to a minute.
IDLE_SECONDS = 5.0
RECEIVE_MS = 300
ACKNOWLEDGED_EVERY = 200

Place = tuple[int, int, int]


class Witness:
    """Reads topics to their ends, each in a thread; what is delivered again is told by its place.

    `told` gets the ids of new messages as they come. A file for each topic in `logs` has a line for
    each message: when it was read, its place, producer and position, the event's id.
    """

    def __init__(
        self, url: str, topics: Sequence[str], told: Callable[[Iterable[str]], None], logs: Path
    ) -> None:
        self.events: dict[str, list[str]] = {}
        self._url, self._told, self._logs = url, told, logs
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.follow(topics)

    def follow(self, topics: Sequence[str]) -> None:
        """Read these, too, from their beginning."""
        new = [topic for topic in topics if topic not in self.events]
        with contextlib.closing(connect(self._url)) as client:
            for topic in new:
                self._subscribe(client, topic).close()
        for topic in new:
            self.events[topic] = []
            self._threads.append(threading.Thread(target=self._read, args=(topic,), daemon=True))
            self._threads[-1].start()

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
        with (self._logs / f"{topic.rpartition('/')[2]}.messages").open("w") as log:
            while not self._over.is_set():
                with contextlib.suppress(pulsar.PulsarException):
                    client = connect(self._url)
                    try:
                        last = self._take(self._subscribe(client, topic), topic, last, log)
                    finally:
                        client.close()
                self._over.wait(0.3)

    def _take(self, consumer: pulsar.Consumer, topic: str, last: Place, log: TextIO) -> Place:
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
                self._note(message, place, topic, log)
            taken.append(message)
            if len(taken) == ACKNOWLEDGED_EVERY:
                consumer.acknowledge_cumulative(taken.pop())
                taken.clear()
        if taken:
            consumer.acknowledge_cumulative(taken.pop())
        return last

    def _note(self, message: pulsar.Message, place: Place, topic: str, log: TextIO) -> None:
        properties = message.properties()
        self.events[topic].append(properties["id"])
        self._told([properties["id"]])
        clock, where = time.strftime("%H:%M:%S"), ":".join(map(str, place))
        position = properties.get("position")
        log.write(f"{clock} {where} {message.producer_name()} {position} {properties['id']}\n")
