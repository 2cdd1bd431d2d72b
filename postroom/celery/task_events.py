"""Task events for Flower, sent beside the work: a Redis that is away delays no event's handling."""

from __future__ import annotations

import collections
import contextlib
import threading
from typing import Any

import orjson

from postroom import tracing
from postroom.celery import adapter

__all__ = ["TaskEvents", "publish"]

# While Redis is away the newest are kept; Flower shows no more than what it was told anyway.
MOST_KEPT = 10_000
MOST_AT_ONCE = 200
PAUSE_SECONDS = 0.1
RETRY_SECONDS = 2.0
# What kombu calls what is in JSON already.
JSON = {"content_type": "application/json", "content_encoding": "utf-8"}


class TaskEvents:
    """Stands in for Celery's event dispatcher: send() only queues, a thread of its own sends.

    What is wanted is what Celery's own dispatcher is told, by -E or worker_send_task_events and by
    `enable_events` and `disable_events`; while Redis is away, what it was told last.
    """

    def __init__(self, worker: Any) -> None:
        self._app = worker.app
        self._worker = worker
        self._is_wanted = bool(worker.task_events)
        self._waiting: collections.deque[dict[str, Any]] = collections.deque(maxlen=MOST_KEPT)
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=tracing.silently(self._run), name="task-events", daemon=True
        )

    @property
    def enabled(self) -> bool:
        """Whether events of tasks are wanted now."""
        consumer = getattr(self._worker, "consumer", None)
        dispatcher = getattr(consumer, "event_dispatcher", None)
        if dispatcher is not None:
            # No group at all is every group.
            self._is_wanted = not dispatcher.groups or "task" in dispatcher.groups
        return self._is_wanted

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send what waits, if Redis takes it at once."""
        self._stopping.set()
        self._thread.join(RETRY_SECONDS)

    def send(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's name for it
        """Queue an event, if events are wanted; returns at once."""
        if self.enabled:
            self._waiting.append(adapter.event(self._app, type, self._worker.hostname, fields))

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(Exception):  # Redis is away; Celery itself says so
                self._connected()
            self._stopping.wait(RETRY_SECONDS)

    def _connected(self) -> None:
        with (
            self._app.connection_for_write(connect_timeout=RETRY_SECONDS) as connection,
            self._app.events.Dispatcher(
                connection, hostname=self._worker.hostname, buffer_while_offline=False
            ) as dispatcher,
        ):
            while not self._stopping.wait(PAUSE_SECONDS) or self._waiting:
                self._flush(dispatcher)

    def _flush(self, dispatcher: Any) -> None:
        # Those that are there now: what comes meanwhile makes one larger batch after the pause.
        left = len(self._waiting)
        while left > 0:
            batch = [self._waiting[i] for i in range(min(MOST_AT_ONCE, len(self._waiting)))]
            left -= len(batch)
            publish(dispatcher, batch)
            for _ in batch:
                self._waiting.popleft()


def publish(dispatcher: Any, events: list[dict[str, Any]]) -> None:
    """Send task events in one message, as the dispatcher's own flush() does."""
    body, form = _encoded(events, dispatcher.serializer)
    dispatcher.producer.publish(
        body,
        routing_key="task.multi",
        exchange=dispatcher.exchange.name,
        retry=False,
        declare=[dispatcher.exchange],
        headers=dispatcher.headers,
        delivery_mode=dispatcher.delivery_mode,
        **form,
    )


def _encoded(events: list[dict[str, Any]], serializer: str) -> tuple[Any, dict[str, str]]:
    # kombu's own JSON takes ten times as long, three times for each task; it knows more types.
    if serializer == "json":
        with contextlib.suppress(orjson.JSONEncodeError):
            return orjson.dumps(events), JSON
    return events, {"serializer": serializer}
