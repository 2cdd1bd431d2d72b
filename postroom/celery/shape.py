"""Shape: what a relay or consumer worker is made into before Celery builds its pool."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from postroom.celery import adapter
from postroom.celery.outage import go_on_without_broker

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["refuse_others", "shape"]


def refuse_others(worker: Any, *, kind: str, is_ours: Callable[[str], bool]) -> None:
    """End a worker that was started for other queues too.

    Raises:
        SystemExit: it was. Celery logs and swallows everything else that a signal handler raises.

    """
    others = sorted(queue for queue in adapter.queues(worker.app) if not is_ours(queue))
    if others:
        raise SystemExit(
            f"A {kind} worker does nothing else: start it with `-Q {kind}` alone, and another "
            f"worker for {', '.join(others)}."
        )


def shape(worker: Any, *, kind: str, concurrency: int, meanwhile: str) -> None:
    """Give a worker threads instead of processes, and a node name of its own.

    The Pulsar client does not survive a fork. Nothing that the worker runs came from Redis: what
    Celery does to agree with other workers about that, or to cancel it when Redis goes away, would
    only cost time and fill the log.
    """
    adapter.into_threads(
        worker, hostname=_named_after(worker.hostname, kind), concurrency=concurrency
    )
    go_on_without_broker(worker, meanwhile=meanwhile)


def _named_after(hostname: str, kind: str) -> str:
    # Every worker started without -n on one machine would be celery@<host>, and Flower and
    # `inspect` would take them for one.
    if not adapter.is_unnamed(hostname):
        return hostname
    return adapter.named(hostname, f"{kind}-{os.getpid()}")
