"""The relay worker: what `-Q relay` makes of a Celery worker."""

from __future__ import annotations

import functools
import logging
import threading
from typing import TYPE_CHECKING, Any

from celery import signals

from postroom import errors, event_classes, names
from postroom.celery import adapter, collector, fleet_settings, telemetry_step
from postroom.celery import step as steps
from postroom.celery.shape import refuse_others, refuse_useless, shape, threads_asked_for
from postroom.celery.step import EXIT_FAILURE, Step
from postroom.private_text import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery

    from postroom.relay.relay import Relay
    from postroom.relay.sharing.crew import Crew

__all__ = ["RelayStep", "install", "is_wanted", "shape_worker"]

logger = logging.getLogger(__name__)

# worker_ready comes when Redis has answered. The relay does not need Redis, and waits for it no
# longer than this.
PATIENCE_SECONDS = 5.0
# Batches of a thousand rows had the collector of cycles walk all of them again and again, a tenth
# of the relay's time, and none of them is part of a cycle.
MOST_UNWALKED = 200_000


def install(app: Celery) -> None:
    """Add the relay to those of the application's workers that are started for it."""
    app.steps["worker"].add(RelayStep)
    signals.worker_ready.connect(_begin, weak=False, dispatch_uid="postroom-relay-ready")
    steps.install()


def is_wanted(app: Celery) -> bool:
    """Say whether this worker was started to relay."""
    return bool(_wanted(app))


def _wanted(app: Celery) -> list[str | None]:
    installation = getattr(app, "postroom", None)
    return installation.queues.relay.wanted(adapter.queues(app)) if installation else []


def partitions_of(app: Celery) -> list[str]:
    """Name the outbox partitions that this worker was started to relay, where it shares none."""
    default = app.postroom.settings.partition
    return list(dict.fromkeys(default if each is None else each for each in _wanted(app)))


def pins_of(app: Celery) -> frozenset[int] | None:
    """Return the numbers of the outbox partitions that a worker is pinned to, None for none.

    Raises:
        ConfigurationError: there are no such ones.

    """
    wanted, count, name = _wanted(app), app.postroom.settings.partitions, _name(app)
    named = [each for each in wanted if each is not None]
    if not named:
        return None
    if None in wanted:
        raise errors.ConfigurationError(
            f"-Q {name} shares all outbox partitions, and -Q {name}.{named[0]} serves that one "
            "alone: give one of the two."
        )
    unknown = [each for each in named if not (each.isdecimal() and int(each) < count)]
    if unknown:
        raise errors.ConfigurationError(
            f"-Q {name}.{unknown[0]} names none of the {count} outbox partitions "
            f"(POSTROOM_PARTITIONS): they are {name}.0 to {name}.{count - 1}."
        )
    return frozenset(map(int, named))


def _name(app: Celery) -> str:
    return str(app.postroom.queues.relay.name)


def shape_worker(worker: Any) -> None:
    """Make a worker in worker_init fit for relaying, or refuse it.

    Raises:
        ConfigurationError: it was started in a way that does not go with a relay, or an event class
            whose key it is to find cannot be read.

    """
    refuse_others(worker, kind="relay", queue=worker.app.postroom.queues.relay)
    refuse_useless(worker, kind="relay")
    worker.app.postroom.settings.envelopes.require_keys()
    event_classes.key_fields()
    if _shares(worker.app):
        pins_of(worker.app)
    else:
        _refuse_misnamed(worker.app)
        _refuse_rivals(worker.app)
    if threads_asked_for(worker) not in (None, 1):
        logger.warning("A relay worker has one relay in one thread: -c means nothing to it")
    shape(worker, kind="relay", concurrency=1, meanwhile="relaying goes on")


def _shares(app: Celery) -> bool:
    return bool(app.postroom.settings.partitions > 1)


def _refuse_misnamed(app: Celery) -> None:
    queue = app.postroom.queues.relay.name
    for partition in partitions_of(app):
        if not partition:
            raise errors.ConfigurationError(
                f"-Q {queue}. names no outbox partition behind its dot."
            )
        try:
            names.checked(partition)
        except ValueError as error:
            raise errors.ConfigurationError(
                f"-Q {queue}.… names the outbox partition {quoted(partition)}, and {error}."
            ) from None


def _refuse_rivals(app: Celery) -> None:
    """Refuse several partitions where they are sure to fence each other out of a topic."""
    several, routing = partitions_of(app), app.postroom.routing
    if callable(app.postroom.topics):
        return  # nobody can tell beforehand
    fenced = [topic for topic in routing.topics if not routing.is_shared(topic)]
    if len(several) > 1 and fenced:
        raise errors.ConfigurationError(
            f"Partitions {', '.join(several)} would all send to {fenced[0]}, and a topic has one "
            "relay: start a worker for each, with POSTROOM_TOPIC of its own, or declare the topic "
            "with install(shared=…)."
        )


_waiting: list[RelayStep] = []


def _begin(**_: Any) -> None:
    for step in _waiting:
        step.begin()


class RelayStep(Step):
    """Runs one relay thread for each outbox partition, or a crew that shares them with others."""

    name = "postroom-relay"

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._worker = worker
        self._relays: list[Relay] = []
        self._crew: Crew | None = None
        self._begun = threading.Lock()
        self._is_stopping = threading.Event()
        self._patience = threading.Timer(PATIENCE_SECONDS, self._begin_without_redis)
        self._patience.daemon = True

    def include_if(self, worker: Any) -> bool:
        """Say whether this worker was started to relay."""
        return is_wanted(worker.app)

    def start(self, worker: Any) -> None:
        """Get ready; the relay begins on worker_ready."""
        # What relays is imported in workers that relay: it is 3 MiB for any other.
        from postroom.relay.relay import Relay

        installation = self.app.postroom
        settings, routing = installation.settings, installation.routing
        subscriptions = installation.consume
        if _shares(self.app):
            self._crew = self._new_crew()
        else:
            self._relays = [
                Relay(settings, routing, partition=partition, subscriptions=subscriptions)
                for partition in partitions_of(self.app)
            ]
        for relay in self._relays:
            telemetry_step.of(worker).follow_relay(relay)
        self.watch()
        _waiting.append(self)
        self._patience.start()

    def _begin_without_redis(self) -> None:
        logger.warning("Redis has not answered yet; the relay begins without it")
        self.begin()

    def begin(self) -> None:
        """Start the relays; a second call does nothing."""
        if not self._begun.acquire(blocking=False):
            return
        self._patience.cancel()
        collector.spare(MOST_UNWALKED)
        if self._crew is not None:
            self.run_in_thread("relay-crew", self._crew.run)
        for relay in self._relays:
            self._start(relay, functools.partial(self._relay_or_share, relay))

    def _relay_or_share(self, relay: Relay) -> None:
        """Run a relay that shares nothing, until the outbox turns out to have been divided since.

        It has one outbox partition again, and that has a name which the crew looks up.
        """
        try:
            relay.run()
        except errors.OtherGeneration as error:
            logger.info("%s; that is relayed", error)
            telemetry_step.of(self._worker).forget_relay(relay)
            # As a whole: to stop those that there are another thread may be walking over them.
            self._relays = [each for each in self._relays if each is not relay]
            self._crew = self._new_crew()
            if not self._is_stopping.is_set():
                self._crew.run()

    def _start(self, relay: Relay, run: Callable[[], None] | None = None) -> None:
        partition = relay.status.partition
        thread = self.run_in_thread(f"relay-{partition}", run or relay.run)
        telemetry_step.of(self._worker).runs_in(partition, thread)

    def comes(self, relay: Relay) -> None:
        """Follow a relay of the crew, and run it."""
        telemetry_step.of(self._worker).follow_relay(relay)
        self._start(relay)

    def goes(self, relay: Relay) -> None:
        """Wait for the end of one that has nothing to serve any more, and follow it no longer."""
        self.end_of(f"relay-{relay.status.partition}")
        telemetry_step.of(self._worker).forget_relay(relay)

    def _new_crew(self) -> Crew:
        from postroom.relay.sharing.crew import Crew

        installation, pins = self.app.postroom, None
        if _shares(self.app):
            pins = pins_of(self.app)
        return Crew(
            installation.settings,
            installation.routing,
            host=self,
            pins=pins,
            subscriptions=installation.consume,
        )

    def ask_to_stop(self) -> None:
        """Tell the relays to drain, checkpoint and give the mutex back; returns at once."""
        self._begun.acquire(blocking=False)  # what has not begun never does
        self._patience.cancel()
        self._is_stopping.set()
        if self._crew is not None:
            self._crew.stop()
        for relay in self._relays:
            relay.stop()

    def stopped(self, late: Sequence[str]) -> int | None:
        """Say what did not end in time; let go of what never began."""
        for name in late:
            logger.error(
                "%s did not stop in time; what it had in flight is sent by the next relay if the "
                "topic lacks it",
                name,
            )
        if self in _waiting:
            _waiting.remove(self)
        return EXIT_FAILURE if late else None

    def info(self, worker: Any) -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        """Return what `inspect stats` and Flower's worker page show."""
        relays = [relay.status.snapshot() for relay in self._relays]
        crew = self._crew
        return {
            "postroom-relay": relays if crew is None else crew.snapshots(),
            **({} if crew is None else {"postroom-share": crew.share()}),
            **fleet_settings.shown(self.app.postroom.settings),
        }
