"""Flow: events that are written all the while into each outbox partition, and when they arrive."""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.error
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pulsar
from bson import ObjectId

from tests.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from tests.site import Site, Worker

__all__ = ["Flow", "owners", "start_workers", "wait_for_shares"]

WORKER = "celery -A tasks worker -Q {queue} --loglevel=INFO"


class Arrival(NamedTuple):
    """One event: when it was committed and when it came, by the monotonic clock."""

    part: int
    committed: float
    came: float


class Flow:
    """Writes an event into each of `count` outbox partitions every few milliseconds in the block.

    What arrives is noted; ended() says whether all of it came, once and in order.
    """

    def __init__(self, site: Site, count: int, *, every_seconds: float = 0.04) -> None:
        with contextlib.suppress(urllib.error.HTTPError):  # a relay has made it
            site.admin("PUT", "/partitions", body=str(count).encode())
        self.topics = [f"{site.topic}-partition-{part}" for part in range(count)]
        self.arrivals: list[Arrival] = []
        self._site, self._count, self._every = site, count, every_seconds
        self._written: list[list[str]] = [[] for _ in range(count)]
        self._at: dict[str, tuple[int, float]] = {}
        self._over = threading.Event()
        self._consumer = site.pulsar.subscribe(
            site.topic, "flow", initial_position=pulsar.InitialPosition.Earliest
        )
        self._threads = [threading.Thread(target=run) for run in (self._write, self._read)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._consumer.close()

    def worst(self, since: float, *, parts: Sequence[int] | None = None) -> float:
        """Return the longest time from commit to arrival of what was committed since a moment."""
        found = [
            each.came - each.committed
            for each in list(self.arrivals)
            if each.committed > since and (parts is None or each.part in parts)
        ]
        return max(found, default=0.0)

    def caught_up(self, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until an event that is committed from now on has arrived from each."""
        since = time.monotonic()

        def everywhere() -> bool:
            return {a.part for a in list(self.arrivals) if a.committed > since} == set(
                range(self._count)
            )

        wait_until(everywhere, description="all outbox partitions flow", seconds=seconds)

    def ended(self) -> None:
        """End, and make sure that each topic has all of its events once, in order."""
        self._over.set()
        self._threads[0].join()
        for topic, written in zip(self.topics, self._written, strict=True):

            def has_all(topic: str = topic, written: list[str] = written) -> bool:
                return len(self._site.stored(topic)) >= len(written)

            wait_until(has_all, description=f"all of {topic}")
            assert self._site.stored(topic) == written

    def _write(self) -> None:
        while not self._over.wait(self._every):
            rows = [_row(part) for part in range(self._count)]
            at = time.monotonic()
            for part, row in enumerate(rows):
                self._at[str(row["_id"])] = part, at
                self._written[part].append(str(row["_id"]))
            self._site.outbox.insert_many(rows)

    def _read(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(pulsar.Timeout):
                message = self._consumer.receive(100)
                part, committed = self._at[message.properties()["id"]]
                self.arrivals.append(Arrival(part, committed, time.monotonic()))
                self._consumer.acknowledge(message)


def _row(part: int) -> dict[str, Any]:
    return {
        "_id": ObjectId(),
        "partitionKey": f"default-{part}",
        "occurredAt": datetime.now(UTC),
        "data": {"name": "Counted", "data": {"part": part}},
    }


def start_workers(site: Site, count: int, *, of: int, **variables: str) -> list[Worker]:
    """Start relay workers that share outbox partitions."""
    words = WORKER.format(queue="relay")
    return [site.start(words, POSTROOM_PARTITIONS=str(of), **variables) for _ in range(count)]


def owners(site: Site) -> dict[int, str]:
    """Return which relay worker has which outbox partition, by the checkpoints' rows."""
    return {
        int(row["partitionKey"].rpartition("-")[2]): row["heldBy"]["worker"]
        for row in site.database["__outboxConsumers"].find({"heldBy": {"$ne": None}})
    }


def wait_for_shares(
    site: Site, *shares: int, without: Sequence[str] = (), seconds: float = PATIENCE_SECONDS
) -> dict[int, str]:
    """Wait until the shares are these, largest first, and none of those has any; return owners."""

    def found() -> dict[int, str]:
        now = owners(site)
        held = list(now.values())
        sizes = sorted((held.count(name) for name in set(held)), reverse=True)
        return now if sizes == list(shares) and not set(held) & set(without) else {}

    return wait_until(found, description=f"shares of {shares}", seconds=seconds)
