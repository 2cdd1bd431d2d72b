"""Fleet settings: what running workers say of themselves, in `inspect stats`, to the doctor."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from postroom.celery import queue_broker
from postroom.operations.examining import workers

if TYPE_CHECKING:
    from celery import Celery

    from postroom.settings import Settings

__all__ = ["ask", "shown", "stats"]

NAME = "postroom-settings"
# Of one call: longer than Celery's client waits in one for what may not come, which is a second.
CALL_SECONDS = 3.0
ANSWER_SECONDS, REDIS_SECONDS = 1.0, 6.0


def shown(settings: Settings) -> dict[str, dict[str, str]]:
    """Return what a worker adds to `inspect stats`: its settings, without secrets."""
    return {NAME: workers.told(settings)}


def ask(app: Celery) -> workers.Inspected:
    """Ask all workers; return what came within a second, which is nothing where Redis is away.

    A Redis that hangs is not waited for.
    """
    answers: list[Mapping[str, Any]] = []

    def run() -> None:
        with contextlib.suppress(Exception):  # whatever kombu raises: nobody has answered
            answers.append(stats(app))

    # One of a pool would keep the process from ending, for as long as it hangs.
    asking = threading.Thread(target=run, name="postroom-fleet", daemon=True)
    asking.start()
    asking.join(REDIS_SECONDS)
    told = answers[0] if answers else {}
    return workers.Inspected(
        settings=_settings_in(told),
        waiting={name: workers.troubles(stats) for name, stats in told.items()},
        relays={name: workers.relays(stats) for name, stats in told.items()},
    )


def stats(app: Celery) -> Mapping[str, Mapping[str, Any]]:
    """Return the statistics of all workers that answered within a second.

    Ends by itself within some seconds where Redis says nothing.

    Raises:
        Exception: whatever kombu raises where Redis is away.

    """
    with queue_broker.bounded(app, CALL_SECONDS) as connection:
        asked = app.control.inspect(timeout=ANSWER_SECONDS, connection=connection)
        found = asked.stats() or {}
    return {str(name): told for name, told in found.items() if isinstance(told, Mapping)}


def _settings_in(told: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    found = {}
    for worker, stats in told.items():
        theirs = stats.get(NAME)
        if isinstance(theirs, Mapping):
            found[worker] = theirs
    return found
