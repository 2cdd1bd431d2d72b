"""The consumer worker: what `-Q consumer` makes of a Celery worker."""

from __future__ import annotations

import functools
import logging
import math
from typing import TYPE_CHECKING, Any

from celery import signals

from postroom import errors
from postroom.access import pulsar as pulsar_access
from postroom.celery import adapter, collector, fleet_settings, step, telemetry_step
from postroom.celery.shape import refuse_others, refuse_useless, shape, threads_asked_for
from postroom.celery.step import HUNG_GRACE_SECONDS, Step
from postroom.celery.task_events import TaskEvents
from postroom.inbox.handling.handlers import registry
from postroom.pulsar_admin import PulsarAdmin
from postroom.topics import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery import Celery

    from postroom.celery.runner import TaskRunner
    from postroom.inbox.consumer import Consumer

__all__ = ["ConsumerStep", "install", "is_wanted", "require_free_names", "shape_worker"]

logger = logging.getLogger(__name__)

# What the runner is given beyond its threads: one that is done finds its next job at once, and does
# not wait until the dispatcher has had its turn. An eighth of the threads' time was spent waiting.
AHEAD = 0.5
# The collector of cycles took a tenth of the worker's time, to walk what was loaded at its start
# most of all. No larger: handlers may leave cycles of their own, and 10,000 objects of such as hold
# documents of a megabyte fill a gigabyte and a half.
MOST_UNWALKED = 2_000


def install(app: Celery) -> None:
    """Add the consumers to those of the application's workers that are started for them."""
    app.steps["worker"].add(ConsumerStep)
    step.install()


def is_wanted(app: Celery) -> bool:
    """Say whether this worker was started to consume."""
    return bool(_wanted(app))


def _wanted(app: Celery) -> list[str | None]:
    installation = getattr(app, "postroom", None)
    return installation.queues.consumer.wanted(adapter.queues(app)) if installation else []


def _subscriptions_of(app: Celery) -> list[str]:
    """Name the subscriptions of a worker: all of `-Q consumer`, one of `consumer.<name>`."""
    found: list[str] = []
    for each in _wanted(app):
        found += app.postroom.consume if each is None else [each]
    return list(dict.fromkeys(found))


def shape_worker(worker: Any) -> None:
    """Make a worker in worker_init fit for consuming, or refuse it.

    Raises:
        ConfigurationError: it was started in a way that does not go with a consumer, or what is
            registered does not fit what it is to read.

    """
    installation = worker.app.postroom
    wanted = _subscriptions_of(worker.app)
    if unknown := [name for name in wanted if name not in installation.consume]:
        raise errors.ConfigurationError(
            f"There is no subscription {', '.join(unknown)}; install(consume=…) knows "
            f"{', '.join(installation.consume)}."
        )
    refuse_others(worker, kind="consumer", queue=installation.queues.consumer)
    refuse_useless(worker, kind="consumer")
    if installation.settings.encrypt == "all":
        # Classes alone say nothing of which events it is to read.
        installation.settings.envelopes.require_keys()
    registry.require_for(wanted, known=installation.consume)
    require_free_names(worker.app, registry.handlers)
    shape(
        worker,
        kind="consumer",
        concurrency=threads_asked_for(worker) or installation.settings.concurrency,
        meanwhile="events are consumed all the same",
    )


def require_free_names(app: Celery, names: Iterable[str]) -> None:
    """Make sure that no handler takes the place of a task of the application.

    Raises:
        ConfigurationError: one has such a task's name.

    """
    from postroom.celery.runner import HandlerTask

    for name in names:
        if name in app.tasks and not isinstance(app.tasks[name], HandlerTask):
            raise errors.ConfigurationError(
                f"The handler {name!r} is called like a task of the application, and would take "
                "its place in this worker: give one of them another `name`"
            )


def _divide_ahead(app: Celery, subscription: str) -> None:
    """Have the topics of a divided outbox made with their topic partitions, as its relays do.

    A consumer that comes first would have the broker make them without any, for good.
    """
    settings, routing = app.postroom.settings, app.postroom.routing
    if settings.partitions > 1:
        admin = PulsarAdmin(pulsar_access.of(settings))
        read = {canonical(n) for n in app.postroom.consume[subscription] if not n.startswith("re:")}
        for topic in routing.topics:
            if topic in read:
                admin.divide(topic, settings.partitions)


class ConsumerStep(Step):
    """Runs one consumer thread for each subscription."""

    name = "postroom-consumer"
    grace_seconds = HUNG_GRACE_SECONDS

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._consumers: list[Consumer] = []
        self._events: TaskEvents | None = None
        self._runner: TaskRunner | None = None

    def include_if(self, worker: Any) -> bool:
        """Say whether this worker was started to consume."""
        return is_wanted(worker.app)

    def start(self, worker: Any) -> None:
        """Register the handlers as tasks and begin to consume."""
        # What consumes is imported in workers that consume: it is 2 MiB for any other.
        from postroom.celery.runner import TaskRunner
        from postroom.inbox.consumer import Consumer, Consumption

        installation = self.app.postroom
        registry.close()
        self._events = TaskEvents(worker)
        self._events.start()
        runner = self._runner = TaskRunner(worker, self._events)
        runner.prepare(list(registry.handlers.values()))
        subscriptions = _subscriptions_of(self.app)
        ahead = math.ceil(worker.concurrency * AHEAD / len(subscriptions))
        for subscription in subscriptions:
            own = runner.of()
            consumption = Consumption(
                settings=installation.settings,
                registry=registry,
                envelopes=installation.settings.envelopes,
                subscription=subscription,
                topics=installation.consume[subscription],
                runner=own,
                threads=worker.concurrency,
                ahead=ahead,
            )
            own.consumer = Consumer(consumption)
            self._consumers.append(own.consumer)
        self.watch()
        collector.spare(MOST_UNWALKED)
        # As in each process of a pool, before its first task: this is the one that runs handlers.
        signals.worker_process_init.send(sender=None)
        telemetry = telemetry_step.of(worker)
        for consumer in self._consumers:
            telemetry.follow_consumer(consumer)
            name = consumer.status.subscription
            run = functools.partial(self._consume, consumer)
            telemetry.runs_in(name, self.run_in_thread(f"consumer-{name}", run))

    def _consume(self, consumer: Consumer) -> None:
        _divide_ahead(self.app, consumer.status.subscription)
        consumer.run()

    def ask_to_stop(self) -> None:
        """Tell the consumers to start nothing new; returns at once."""
        for consumer in self._consumers:
            consumer.stop()

    def stopped(self, late: Sequence[str]) -> int | None:
        """Let the handlers' threads go; one that hangs cannot be stopped."""
        hung = bool(late) or (self._runner is not None and self._runner.has_abandoned)
        if self._runner is not None:
            self._runner.stop()
        if self._events is not None:
            self._events.stop()
        hung = hung or any(consumer.status.running for consumer in self._consumers)
        return adapter.exit_code() if hung else None

    def info(self, worker: Any) -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        """Return what `inspect stats` and Flower's worker page show."""
        return {
            "postroom-consumer": [c.status.snapshot() for c in self._consumers],
            **fleet_settings.shown(self.app.postroom.settings),
        }
