"""The relay worker: what `-Q relay` makes of a Celery worker."""

from __future__ import annotations

import gc
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from celery import bootsteps, signals

from postroom import errors
from postroom.celery import adapter
from postroom.celery.ending import EXIT_FAILURE, end_worker, exit_after
from postroom.celery.shape import refuse_others, shape
from postroom.relay.relay import Relay
from postroom.routing import Routing

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["RelayStep", "install", "partitions", "partitions_of", "shape_worker"]

logger = logging.getLogger(__name__)

QUEUE = "relay"
# worker_ready comes when Redis has answered. The relay does not need Redis, and waits for it no
# longer than this.
PATIENCE_SECONDS = 5.0
STUCK_GRACE_SECONDS = 1.0


def partitions(queues: set[str], default: str) -> list[str]:
    """Name the partitions that a worker consuming `queues` relays: `relay`, `relay.<partition>`."""
    found = []
    for queue in sorted(queues):
        if queue == QUEUE:
            found.append(default)
        elif queue.startswith(f"{QUEUE}."):
            found.append(queue.removeprefix(f"{QUEUE}."))
    return found


def install(app: Celery) -> None:
    """Add the relay to those of the application's workers that are started for it."""
    app.steps["worker"].add(RelayStep)
    signals.worker_ready.connect(_begin, weak=False, dispatch_uid="postroom-relay-ready")
    signals.worker_shutting_down.connect(_hurry, weak=False, dispatch_uid="postroom-relay-stop")


def partitions_of(app: Celery) -> list[str]:
    """Name the partitions that this worker was started to relay."""
    installation = getattr(app, "postroom", None)
    if installation is None:
        return []
    return partitions(adapter.queues(app), installation.settings.partition)


def _is_ours(queue: str) -> bool:
    return queue == QUEUE or queue.startswith(f"{QUEUE}.")


def shape_worker(sender: Any) -> None:
    """Make a worker in worker_init fit for relaying, or refuse it.

    Raises:
        SystemExit: it was started in a way that does not go with a relay.

    """
    refuse_others(sender, kind=QUEUE, is_ours=_is_ours)
    if sender.options.get("autoscale"):
        raise SystemExit("A relay worker has one relay and no use for --autoscale: leave it out.")
    _refuse_rivals(sender.app)
    shape(sender, kind=QUEUE, concurrency=1, meanwhile="relaying goes on")


def _refuse_rivals(app: Celery) -> None:
    """Refuse several partitions where they are sure to fence each other out of a topic."""
    several, routing = partitions_of(app), _routing(app)
    if callable(app.postroom.topics):
        return  # nobody can tell beforehand
    fenced = [topic for topic in routing.topics if not routing.is_shared(topic)]
    if len(several) > 1 and fenced:
        raise SystemExit(
            f"Partitions {', '.join(several)} would all send to {fenced[0]}, and a topic has one "
            "relay: start a worker for each, with POSTROOM_TOPIC of its own, or declare the topic "
            "with install(shared=…)."
        )


def _routing(app: Celery) -> Routing:
    installation = app.postroom
    return Routing(
        default=installation.settings.topic,
        topics=installation.topics,
        key=installation.key,
        shared=installation.shared,
    )


_steps: list[RelayStep] = []


def _begin(**_: Any) -> None:
    for step in _steps:
        step.begin()


def _hurry(**_: Any) -> None:
    # Within the operating system's signal handler: a lock taken here could be held by the very
    # code that was interrupted, so another thread does it. The mutex is free that much earlier.
    for step in _steps:
        threading.Thread(target=step.ask_to_stop, daemon=True).start()


class RelayStep(bootsteps.StartStopStep):
    """Runs one relay thread for each partition; a part of the worker, not of its consumer.

    A consumer's steps stand still while Redis is away; the worker's do not.
    """

    name = "postroom-relay"
    requires = (adapter.POOL,)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._app = worker.app
        self._relays: list[Relay] = []
        self._threads: list[threading.Thread] = []
        self._begun = threading.Lock()
        self._patience = threading.Timer(PATIENCE_SECONDS, self._begin_without_redis)
        self._patience.daemon = True

    def include_if(self, worker: Any) -> bool:
        """Say whether this worker was started to relay."""
        return bool(partitions_of(worker.app))

    def start(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Get ready; the relay begins on worker_ready."""
        installation, routing = self._app.postroom, _routing(self._app)
        self._relays = [
            Relay(
                installation.settings,
                routing,
                partition=partition,
                subscriptions=installation.consume,
            )
            for partition in partitions_of(self._app)
        ]
        _steps.append(self)
        self._patience.start()

    def _begin_without_redis(self) -> None:
        logger.warning("Redis has not answered yet; the relay begins without it")
        self.begin()

    def begin(self) -> None:
        """Start the relays; a second call does nothing."""
        if not self._begun.acquire(blocking=False):
            return
        self._patience.cancel()
        _spare_the_collector()
        for relay in self._relays:
            thread = threading.Thread(
                target=self._run, args=(relay,), name=f"relay-{relay.status.partition}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _run(self, relay: Relay) -> None:
        try:
            relay.run()
        except errors.ConfigurationError as error:
            end_worker(self._app, str(error))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the worker must not live on
            end_worker(self._app, "The relay thread died; the worker ends with it", cause=error)

    def ask_to_stop(self) -> None:
        """Tell the relays to drain, checkpoint and give the mutex back; returns at once."""
        self._patience.cancel()
        for relay in self._relays:
            relay.stop()

    def stop(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Stop the relays and wait until they have, for a bounded time."""
        self._begun.acquire(blocking=False)
        self.ask_to_stop()
        deadline = time.monotonic() + self._app.postroom.settings.shutdown_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                logger.error(
                    "%s did not stop in time; what it had in flight is sent by the next relay if "
                    "the topic lacks it",
                    thread.name,
                )
        if any(thread.is_alive() for thread in self._threads):
            exit_after(STUCK_GRACE_SECONDS, EXIT_FAILURE)
        if self in _steps:
            _steps.remove(self)

    # A cold shutdown may cut tasks short, but never the checkpoint.
    terminate = stop

    def info(self, worker: Any) -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        """Return what `inspect stats` and Flower's worker page show."""
        return {"postroom-relay": [relay.status.snapshot() for relay in self._relays]}


def _spare_the_collector() -> None:
    # Batches of a thousand rows make the cycle collector walk all of them again and again, a tenth
    # of the relay's time, and none of them is part of a cycle. What was loaded so far stays for
    # good.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
