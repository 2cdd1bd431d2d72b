"""Fleet settings: what running workers say that they were set up with, in `inspect stats`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from postroom.operations.examining.workers import told

if TYPE_CHECKING:
    from celery import Celery

    from postroom.settings import Settings

__all__ = ["answers", "ask", "shown", "told_in"]

NAME = "postroom-settings"
ANSWER_SECONDS = 1.0


def shown(settings: Settings) -> dict[str, dict[str, str]]:
    """Return what a worker adds to `inspect stats`: its settings, without secrets."""
    return {NAME: told(settings)}


def ask(app: Celery) -> dict[str, Mapping[str, str]]:
    """Ask all workers, and return the settings of those that answer within a second.

    Raises:
        Exception: whatever kombu raises where Redis is away.

    """
    return told_in(answers(app))


def answers(app: Celery) -> dict[str, Any]:
    """Ask all workers for their stats, and return what came within a second, by worker.

    Raises:
        Exception: whatever kombu raises where Redis is away.

    """
    return app.control.inspect(timeout=ANSWER_SECONDS).stats() or {}


def told_in(answers: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """Return the settings among what workers have answered, by worker."""
    found = {}
    for worker, stats in answers.items():
        theirs = stats.get(NAME) if isinstance(stats, Mapping) else None
        if isinstance(theirs, Mapping):
            found[str(worker)] = theirs
    return found
