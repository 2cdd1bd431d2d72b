"""Ending: how a worker that cannot go on is taken down, for certain and with a reason."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from postroom.celery import adapter

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["EXIT_FAILURE", "end_worker", "exit_after"]

logger = logging.getLogger(__name__)

EXIT_FAILURE = 1
GRACE_SECONDS = 5.0


def end_worker(app: Celery, reason: str, *, cause: BaseException | None = None) -> None:
    """Have the worker stop as on TERM, but with exit code 1, and by force if it does not.

    A worker that answers pings and does nothing would be the worst of all.
    """
    logger.critical("%s", reason, exc_info=cause)
    adapter.ask_to_end(EXIT_FAILURE)
    exit_after(app.postroom.settings.shutdown_seconds + GRACE_SECONDS, EXIT_FAILURE)


def exit_after(seconds: float, code: int) -> None:
    """End the process after a time if it has not ended by itself."""
    last_resort = threading.Timer(seconds, os._exit, args=(code,))
    last_resort.daemon = True
    last_resort.start()
