"""The consumer worker: what `-Q consumer` makes of a Celery worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery


def install(app: Celery) -> None:
    """Add the step to the application's workers."""
