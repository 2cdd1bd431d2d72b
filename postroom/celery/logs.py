"""Logs of Celery's processes, in the form that POSTROOM_LOG_FORMAT asks for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import current_task, signals

from postroom.celery import adapter
from postroom.celery.errand import Errand
from postroom.telemetry.logs import JsonFormatter, PlainFormatter, relay_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from postroom.settings import Settings

__all__ = ["install", "keep_flower_to_lines", "keep_to_lines"]

OURS = (JsonFormatter, PlainFormatter)


def install(app: Celery) -> None:
    """Have the handlers that Celery makes for its loggers write as the setting says.

    Where the application sets logging up itself (`setup_logging`), they are its own affair.
    """
    wanted = app.postroom.settings.log_format

    def form(logger: logging.Logger, **_: Any) -> None:
        for handler in logger.handlers:
            if not isinstance(handler.formatter, OURS):
                inner = handler.formatter or logging.Formatter()
                handler.setFormatter(JsonFormatter(_fields) if wanted == "json" else _plain(inner))

    for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
        signal.connect(form, weak=False, dispatch_uid=f"postroom-logs-{id(signal)}")


def keep_to_lines(worker: Any) -> None:
    """Have a worker in worker_init print no banner where a program reads what it writes."""
    if worker.app.postroom.settings.log_format == "json":
        worker.quiet = True


def keep_flower_to_lines(settings: Settings) -> None:
    """Have Flower, whose logging is Tornado's, write as workers do, but without colours."""
    for handler in logging.getLogger().handlers:
        inner = handler.formatter or logging.Formatter()
        if isinstance(inner, OURS):
            continue
        if isinstance(getattr(inner, "_colors", None), dict):
            inner._colors = {}  # type: ignore[attr-defined]  # noqa: SLF001 - Tornado's LogFormatter
        wanted = settings.log_format == "json"
        handler.setFormatter(JsonFormatter(_fields) if wanted else PlainFormatter(inner))


def _plain(inner: logging.Formatter) -> PlainFormatter:
    # Celery's own colours a whole text, which is made safe before that.
    colors = getattr(inner, "colors", {})
    if not getattr(inner, "use_color", False):
        return PlainFormatter(inner)
    inner.use_color = False  # type: ignore[attr-defined]  # it is Celery's ColorFormatter

    def paint(level: str, text: str) -> str:
        color = colors.get(level)
        return text if color is None else str(color(text))

    return PlainFormatter(inner, paint)


def _fields() -> Mapping[str, object]:
    """Tell of the task that this thread runs, and of the event where it is a handler's."""
    request = getattr(current_task, "request", None)
    if request is None or not request.id:
        return relay_fields()
    found: dict[str, object] = {"task_id": request.id, "task": request.task}
    errand = adapter.carried(request)
    if isinstance(errand, Errand):
        first = errand.job.events[0]
        found |= {
            "handler": errand.job.handler.name,
            "subscription": errand.consumer.status.subscription,
            "attempt": errand.job.attempt,
            "event_id": first.id,
            "event": first.name,
            "topic": first.topic,
            "position": first.position,
            "events": len(errand.job.events),
        }
    return found
