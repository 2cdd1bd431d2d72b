"""The part of every worker that is asked how it is: /metrics, /livez and /readyz."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import bootsteps, signals

from postroom.celery import adapter
from postroom.celery.queue_broker import Probe
from postroom.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["TelemetryStep", "install", "of", "prepare"]

logger = logging.getLogger(__name__)

_prepared: list[Telemetry] = []


def install(app: Celery) -> None:
    """Add it to the application's workers."""
    app.steps["worker"].add(TelemetryStep)
    signals.worker_ready.connect(_ready, weak=False, dispatch_uid="postroom-telemetry-ready")


def prepare(worker: Any) -> None:
    """Take the port, in worker_init: a worker that cannot be asked is not to start.

    Raises:
        ConfigurationError: it cannot be had, or prometheus-client is not installed.

    """
    worker.postroom_telemetry = Telemetry(worker.app.postroom.settings)


def of(worker: Any) -> Telemetry:
    """Return the telemetry of a worker; one that another program makes may have had no init."""
    if getattr(worker, "postroom_telemetry", None) is None:
        prepare(worker)
    found: Telemetry = worker.postroom_telemetry
    return found


def _ready(**_: Any) -> None:
    for telemetry in _prepared:
        telemetry.health.ready()


class TelemetryStep(bootsteps.StartStopStep):
    """Answers from the worker's start to its end, whatever Redis does.

    Behind the pool: its processes are forked off before there is a thread here.
    """

    name = "postroom-telemetry"
    requires = (adapter.POOL,)

    def start(self, worker: Any) -> None:
        """Begin to answer, and say where."""
        telemetry = of(worker)
        probe = Probe(worker.app)
        telemetry.follow_broker(lambda: not probe.trouble())
        telemetry.start()
        _prepared.append(telemetry)
        if telemetry.url is not None:
            logger.info(
                "Answering %s/metrics, /livez and /readyz",
                telemetry.url,
                extra={"action": "telemetry", "url": telemetry.url},
            )

    def stop(self, worker: Any) -> None:
        """Answer no more."""
        telemetry = of(worker)
        if telemetry in _prepared:
            _prepared.remove(telemetry)
            telemetry.stop()

    terminate = stop
