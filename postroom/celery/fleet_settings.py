"""Fleet settings: what running workers say of themselves, in `inspect stats`, to the doctor."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from postroom.operations.examining import workers

if TYPE_CHECKING:
    from celery import Celery

    from postroom.settings import Settings

__all__ = ["ask", "shown"]

NAME = "postroom-settings"
ANSWER_SECONDS, REDIS_SECONDS = 1.0, 6.0


def shown(settings: Settings) -> dict[str, dict[str, str]]:
    """Return what a worker adds to `inspect stats`: its settings, without secrets."""
    return {NAME: workers.told(settings)}


def ask(app: Celery) -> workers.Inspected:
    """Ask all workers; return what came within a second, which is nothing where Redis is away.

    A Redis that hangs is not waited for.
    """
    pool = concurrent.futures.ThreadPoolExecutor(1)
    try:
        told = pool.submit(_stats, app).result(REDIS_SECONDS)
    except Exception:  # noqa: BLE001 - whatever kombu raises: nobody has answered
        told = {}
    finally:
        pool.shutdown(wait=False)
    return workers.Inspected(
        settings=_settings_in(told),
        waiting={name: workers.troubles(stats) for name, stats in told.items()},
        relays={name: workers.relays(stats) for name, stats in told.items()},
    )


def _stats(app: Celery) -> dict[str, Any]:
    found = app.control.inspect(timeout=ANSWER_SECONDS).stats() or {}
    return {str(name): stats for name, stats in found.items() if isinstance(stats, Mapping)}


def _settings_in(told: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    found = {}
    for worker, stats in told.items():
        theirs = stats.get(NAME)
        if isinstance(theirs, Mapping):
            found[worker] = theirs
    return found
