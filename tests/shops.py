"""A shop: a site with the consumer worker of tests.shop, and a producer that is not ours."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Any

import orjson
from celery import Celery

from tests.commands import run
from tests.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    import pulsar

    from tests.site import Site, Worker

__all__ = ["Shop"]


class Shop:
    """A site with the shop's consumer worker and a producer that is not ours."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.producer = site.pulsar.create_producer(site.topic, block_if_queue_full=True)

    def worker(self, queue: str = "consumer", **variables: str) -> Worker:
        """Start a consumer worker."""
        return self.site.start(
            f"celery -A tests.shop worker -Q {queue} --loglevel=INFO", **variables
        )

    def send(
        self, name: str, number: Any = 0, *, key: str | None = None, event_id: str | None = None
    ) -> str:
        """Send an event and return its id."""
        payload = orjson.dumps({"name": name, "data": {"number": number}})
        return self.send_raw(payload, key=key, event_id=event_id)

    def send_raw(
        self, payload: bytes, *, key: str | None = None, event_id: str | None = None
    ) -> str:
        """Send any payload."""
        event_id = event_id or uuid.uuid4().hex
        self.producer.send(payload, properties={"id": event_id}, partition_key=key)
        return event_id

    def seen(self, handler: str | None = None, key: str | None = None) -> list[Any]:
        """Return the numbers that handlers have noted: for a key in their order."""
        if key is not None:
            chart = self.site.database["charts"].find_one({"_id": key})
            return chart["numbers"] if chart else []
        query = {} if handler is None else {"handler": handler}
        return [row["number"] for row in self.site.database["seen"].find(query).sort("_id")]

    def wait_for(
        self, count: int, handler: str | None = None, seconds: float = PATIENCE_SECONDS
    ) -> list[Any]:
        """Wait until so many events have been noted."""
        wait_until(
            lambda: len(self.seen(handler)) >= count,
            description=f"{count} events are seen",
            seconds=seconds,
        )
        return self.seen(handler)

    def dead(self, count: int) -> list[pulsar.Message]:
        """Return the dead letters, of which there are so many."""
        consumer = self.site.subscribe("watch", f"{self.site.topic}-test-DLQ")
        with contextlib.closing(consumer):
            return self.site.receive(consumer, count)

    def command(self, *words: str) -> str:
        """Run a command of the application and return what it prints."""
        return run(self.site, *words).stdout

    def status(self) -> dict[str, Any]:
        """Return what `inspect stats` shows of the worker's consumer, or nothing yet."""
        url = self.site.environment["POSTROOM_REDIS_URL"]
        with Celery(broker=url, backend=url, set_as_current=False) as app:
            # One answer is enough, and the client would wait for more until its time is over.
            found = app.control.inspect(timeout=3, limit=1).stats() or {}
        shown = [stats["postroom-consumer"] for stats in found.values()]
        return dict(shown[0][0]) if shown and shown[0] else {}

    def troubles(self) -> str:
        """Return what the worker says stands still."""
        return "\n".join(self.status().get("troubles", ()))
