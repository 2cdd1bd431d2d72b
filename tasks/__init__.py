"""The aid-kit: medicines are assigned to patients and finished. `celery -A tasks …` starts here."""

from tasks.celery import app

__all__ = ["app"]
