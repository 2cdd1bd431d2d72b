"""Sender: events of some keys on some topics, most of which are good."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from typing import TYPE_CHECKING, Any

import pulsar

from tests.chaos.accounts import Committed
from tests.chaos.clients import connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.accounts import Accounts

__all__ = ["Sender", "Sent"]

KEYS = 20
RATE_PER_SECOND = 120.0
BATCH_MILLISECONDS = 30
MOST_UNDER_WAY = 2000
TWICE_EVERY = 10
POISON_EVERY = 100
LARGE_BYTES = 12 * 1024 * 1024
GOOD = {"Counted": 55, "Typed": 40, "Flaky": 2, "Slow": 1, "Hot": 2}
MALFORMED = (
    b"nonsense",
    b"[1, 2]",
    b'{"name": 1, "data": {}}',
    b'{"name": "Typed", "data": {"number": "many"}}',
)


class Sent:
    """What was sent: for each key the numbers in order, and which ids are good or poison."""

    def __init__(self) -> None:
        self.numbers: dict[str, list[int]] = {}
        self.good: dict[str, str] = {}
        self.poison: set[str] = set()


class Sender:
    """Sends until close(); one event in ten twice, one in a hundred is poison. Thread-safe.

    An event is in the accounts once the broker has it. Where it mixes keys a batch holds several.
    """

    def __init__(
        self,
        url: str,
        topics: Sequence[str],
        accounts: Accounts,
        *,
        seed: int,
        mixes_keys: bool = False,
    ) -> None:
        self.sent = Sent()
        self._mixes_keys = mixes_keys
        self._accounts, self._topics = accounts, topics
        self._dice = random.Random(f"{seed}-sender")
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._count = 0
        self._client = connect(url)
        self._producers = {topic: self._producer(topic) for topic in topics}
        self._thread = threading.Thread(target=self._send_all, daemon=True)
        self._thread.start()

    def burst(self, count: int, *, large: bool = False) -> None:
        """Send so many events that are rejected at once, and one that is larger than a message."""
        topic = self._dice.choice(self._topics)
        for _ in range(count):
            self._poison(topic, _event("Rejected", self._next()))
        if large:
            # Compressed it is small enough to be sent; as a dead letter it may not be.
            self._poison(topic, _event("Rejected", self._next(), text="x" * LARGE_BYTES))

    def crash(self) -> None:
        """Send an event whose handler ends the process."""
        self._poison(self._dice.choice(self._topics), _event("Crash", self._next()))

    def close(self) -> None:
        """Send no more; may be called again."""
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join()
        for producer in self._producers.values():
            with contextlib.suppress(pulsar.PulsarException):
                producer.flush()
        self._client.close()

    def _producer(self, topic: str) -> pulsar.Producer:
        return self._client.create_producer(
            topic,
            producer_name="chaos",
            send_timeout_millis=0,
            block_if_queue_full=True,
            compression_type=pulsar.CompressionType.ZSTD,
            batching_enabled=self._mixes_keys,
            batching_max_publish_delay_ms=BATCH_MILLISECONDS,
        )

    def _send_all(self) -> None:
        while not self._over.wait(self._dice.expovariate(RATE_PER_SECOND)):
            if self._accounts.under_way > MOST_UNDER_WAY:
                continue  # or a slow machine would take longer than the run to come to its end
            topic, number = self._dice.choice(self._topics), self._next()
            if number % POISON_EVERY == 0:
                broken = _event(self._dice.choice(["Rejected", "Broken"]), number)
                self._poison(topic, self._dice.choice([*MALFORMED, broken]))
            else:
                self._good(topic, number)

    def _next(self) -> int:
        with self._lock:
            self._count += 1
            return self._count

    def _good(self, topic: str, number: int) -> None:
        (name,) = self._dice.choices(list(GOOD), list(GOOD.values()))
        event_id = f"e{number}"
        self.sent.good[event_id] = name
        key = None
        if name != "Hot":
            key = f"{topic.rpartition('/')[2]}-{self._dice.randrange(KEYS)}"
            self.sent.numbers.setdefault(key, []).append(number)
        self._send(topic, _event(name, number), event_id, key, counts=True)
        if number % TWICE_EVERY == 0:
            self._send(topic, _event(name, number), event_id, key)

    def _poison(self, topic: str, payload: bytes) -> None:
        event_id = f"p{self._next()}"
        self.sent.poison.add(event_id)
        key = f"poison-{self._dice.randrange(KEYS)}"
        self._send(topic, payload, event_id, key, counts=True)

    def _send(
        self, topic: str, payload: bytes, event_id: str, key: str | None, *, counts: bool = False
    ) -> None:
        def stored(result: Any, _: Any) -> None:
            # One fate for all of a topic: poison is too rare to be seen to go on by itself; what
            # hangs is seen once the rest of its topic is through.
            if counts and result == pulsar.Result.Ok:
                self._accounts.committed(Committed(event_id, topic, "sent"))

        self._producers[topic].send_async(
            payload, stored, properties={"id": event_id}, partition_key=key
        )


def _event(name: str, number: int, **data: Any) -> bytes:
    return json.dumps({"name": name, "data": {"number": number, **data}}).encode()
