"""The consumer worker: what `-Q consumer` makes of a Celery worker."""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING, Any

from celery import bootsteps, signals

from postroom.celery import adapter
from postroom.celery.ending import end_worker, exit_after
from postroom.celery.runner import TaskRunner
from postroom.celery.shape import refuse_others, shape
from postroom.celery.task_events import TaskEvents
from postroom.inbox.consumer import Consumer, Reading
from postroom.inbox.handlers import registry

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["ConsumerStep", "install", "shape_worker", "subscriptions_of"]

logger = logging.getLogger(__name__)

QUEUE = "consumer"
HUNG_GRACE_SECONDS = 2.0
# What the runner is given beyond its threads: one that is done finds its next job at once, and does
# not wait until the dispatcher has had its turn. An eighth of the threads' time was spent waiting.
AHEAD = 0.5


def install(app: Celery) -> None:
    """Add the consumers to those of the application's workers that are started for them."""
    app.steps["worker"].add(ConsumerStep)
    signals.worker_shutting_down.connect(_hurry, weak=False, dispatch_uid="postroom-consumer-stop")


def _is_ours(queue: str) -> bool:
    return queue == QUEUE or queue.startswith(f"{QUEUE}.")


def subscriptions_of(app: Celery) -> list[str]:
    """Name the subscriptions of a worker: all of `-Q consumer`, one of `consumer.<name>`."""
    installation = getattr(app, "postroom", None)
    if installation is None:
        return []
    found: list[str] = []
    for queue in sorted(filter(_is_ours, adapter.queues(app))):
        found += list(installation.consume) if queue == QUEUE else [queue.split(".", 1)[1]]
    return list(dict.fromkeys(found))


def shape_worker(sender: Any) -> None:
    """Make a worker in worker_init fit for consuming, or refuse it.

    Raises:
        SystemExit: it was started in a way that does not go with a consumer.

    """
    wanted = subscriptions_of(sender.app)
    installation = sender.app.postroom
    unknown = [name for name in wanted if name not in installation.consume]
    if unknown:
        raise SystemExit(
            f"There is no subscription {', '.join(unknown)}; install(consume=…) knows "
            f"{', '.join(installation.consume)}."
        )
    refuse_others(sender, kind=QUEUE, is_ours=_is_ours)
    if not registry.handlers:
        raise SystemExit(
            "No handler is registered, and every event would be acknowledged unseen: name the "
            "modules with @handles in Celery's `imports`."
        )
    if sender.options.get("autoscale"):
        raise SystemExit(
            "A consumer worker has a fixed number of threads (-c or POSTROOM_CONCURRENCY) and no "
            "use for --autoscale: leave it out."
        )
    asked_for = sender.options.get("concurrency")
    shape(
        sender,
        kind=QUEUE,
        concurrency=asked_for or installation.settings.concurrency,
        meanwhile="events are consumed all the same",
    )


_steps: list[ConsumerStep] = []


def _hurry(**_: Any) -> None:
    # Within the operating system's signal handler: another thread takes the locks.
    for step in _steps:
        threading.Thread(target=step.ask_to_stop, daemon=True).start()


class ConsumerStep(bootsteps.StartStopStep):
    """Runs one consumer thread for each subscription; a part of the worker, not of its consumer.

    A consumer's steps stand still while Redis is away; the worker's do not.
    """

    name = "postroom-consumer"
    requires = (adapter.POOL,)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._app = worker.app
        self._consumers: list[Consumer] = []
        self._threads: list[threading.Thread] = []
        self._events: TaskEvents | None = None
        self._runner: TaskRunner | None = None

    def include_if(self, worker: Any) -> bool:
        """Say whether this worker was started to consume."""
        return bool(subscriptions_of(worker.app))

    def start(self, worker: Any) -> None:
        """Register the handlers as tasks and begin to consume."""
        installation = self._app.postroom
        self._events = TaskEvents(self._app, worker.hostname)
        self._events.start()
        runner = self._runner = TaskRunner(worker, self._events)
        runner.prepare(list(registry.handlers.values()))
        subscriptions = subscriptions_of(self._app)
        ahead = math.ceil(worker.concurrency * AHEAD / len(subscriptions))
        for subscription in subscriptions:
            own = runner.of()
            reading = Reading(
                settings=installation.settings,
                registry=registry,
                subscription=subscription,
                topics=installation.consume[subscription],
                runner=own,
                most_submitted=worker.concurrency + ahead,
            )
            own.consumer = Consumer(reading)
            self._consumers.append(own.consumer)
        _steps.append(self)
        for consumer in self._consumers:
            thread = threading.Thread(
                target=self._run,
                args=(consumer,),
                name=f"consumer-{consumer.status.subscription}",
                daemon=True,
            )
            self._threads.append(thread)
            thread.start()

    def _run(self, consumer: Consumer) -> None:
        try:
            consumer.run()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the worker must not live on
            end_worker(self._app, "The consumer thread died; the worker ends with it", cause=error)

    def ask_to_stop(self) -> None:
        """Tell the consumers to start nothing new; returns at once."""
        for consumer in self._consumers:
            consumer.stop()

    def stop(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Let running handlers finish for a bounded time, hand the rest back to Pulsar."""
        self.ask_to_stop()
        hung = self._runner is not None and self._runner.has_abandoned
        for thread in self._threads:
            thread.join(self._app.postroom.settings.shutdown_seconds + HUNG_GRACE_SECONDS)
            hung = hung or thread.is_alive()
        if self._runner is not None:
            self._runner.stop()
        if self._events is not None:
            self._events.stop()
        if hung or any(consumer.status.running for consumer in self._consumers):
            # A thread cannot be stopped, and what it holds could keep the process from ending.
            exit_after(HUNG_GRACE_SECONDS, adapter.exit_code())
        if self in _steps:
            _steps.remove(self)

    # A cold shutdown may cut tasks short, but hands its events back all the same.
    terminate = stop

    def info(self, worker: Any) -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        """Return what `inspect stats` and Flower's worker page show."""
        return {"postroom-consumer": [c.status.snapshot() for c in self._consumers]}
