"""A kind of task that an application has made for all its tasks, as Celery documents it."""

from __future__ import annotations

import logging
from typing import Any

from celery import Task

__all__ = ["OwnTask"]

logger = logging.getLogger(__name__)


class OwnTask(Task):  # type: ignore[misc]  # celery has no types
    """Says what it runs; tries again by Celery's means, which a handler may not."""

    abstract = True
    autoretry_for = (Exception,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and say so."""
        found = super().__call__(*args, **kwargs)
        logger.info("OwnTask ran %s", self.name)
        return found

    def on_failure(self, exc: Exception, *_: Any) -> None:
        """Say so."""
        logger.info("OwnTask failed %s with %s", self.name, type(exc).__name__)
