"""Shape: what a relay or consumer worker is made into before Celery builds its pool."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from postroom import errors
from postroom.celery import adapter
from postroom.celery.outage import go_on_without_broker

if TYPE_CHECKING:
    from postroom.celery.queues import Queue

__all__ = ["refuse_others", "refuse_useless", "shape", "threads_asked_for"]

logger = logging.getLogger(__name__)

MOST_THREADS = 256
POOLS = {"prefork", "threads"}
# What `celery worker` takes and neither a relay nor a consumer can do anything with.
USELESS = {
    "autoscale": "--autoscale",
    "beat": "-B (start beat by itself: celery -A … beat)",
    "disable_prefetch": "--disable-prefetch",
    "max_memory_per_child": "--max-memory-per-child",
    "max_tasks_per_child": "--max-tasks-per-child",
    "pool_start_method": "--pool-start-method",
    "prefetch_multiplier": "--prefetch-multiplier (POSTROOM_PREFETCH bounds what is held)",
    "soft_time_limit": "--soft-time-limit (POSTROOM_HANDLER_TIMEOUT_SECONDS bounds a handler)",
    "time_limit": "--time-limit (POSTROOM_HANDLER_TIMEOUT_SECONDS bounds a handler)",
}


def refuse_others(worker: Any, *, kind: str, queue: Queue) -> None:
    """Refuse a worker that was started for other queues too.

    Raises:
        ConfigurationError: it was.

    """
    others = sorted(other for other in adapter.queues(worker.app) if not queue.owns(other))
    if others:
        raise errors.ConfigurationError(
            f"A {kind} worker does nothing else: start it with `-Q {queue.name}` alone, and "
            f"another worker for {', '.join(others)}."
        )


def refuse_useless(worker: Any, *, kind: str) -> None:
    """Refuse a worker that was started with an option that would mean nothing to it.

    What the application's configuration says of pools and limits is for its task workers.

    Raises:
        ConfigurationError: it was; the message names the options.

    """
    given = adapter.given_options(worker)
    # 0 is a value that somebody has given, and would mean as little.
    useless = [
        shown
        for name, shown in USELESS.items()
        if given.get(name) is not None and given[name] is not False
    ]
    if useless:
        raise errors.ConfigurationError(
            f"A {kind} worker has no use for {', '.join(useless)}: leave it out."
        )
    pool = adapter.pool_name(given.get("pool"))
    if (pool or "threads") not in POOLS:
        raise errors.ConfigurationError(
            f"A {kind} worker runs in threads: leave --pool={pool} out."
        )
    if green := adapter.patched_by():
        raise errors.ConfigurationError(
            f"A {kind} worker runs in threads, and {green} has replaced them in this process: "
            f"start it without -P {green}, and patch nothing in what it imports."
        )


def threads_asked_for(worker: Any) -> int | str | None:
    """Return what -c says, or None where it says nothing.

    Raises:
        ConfigurationError: it is none, or more than a worker has threads.

    """
    given = adapter.given_options(worker)
    asked: int | str | None = given.get("concurrency")
    # Celery makes nothing of 0, or what the application's configuration says.
    is_zero = "concurrency" in given and asked is None
    if is_zero or (isinstance(asked, int) and not 1 <= asked <= MOST_THREADS):
        raise errors.ConfigurationError(
            f"-c is {asked or 0}: a worker has 1 to {MOST_THREADS} threads; leave it out for "
            "POSTROOM_CONCURRENCY."
        )
    return asked


def shape(worker: Any, *, kind: str, concurrency: int | str, meanwhile: str) -> None:
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
