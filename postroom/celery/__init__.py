"""postroom inside a Celery application; the only room that imports celery."""

from postroom.celery.installation import Installation, install

__all__ = ["Installation", "install"]
