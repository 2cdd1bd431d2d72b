"""An application whose outbox is divided: the events of each outbox partition have a topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery

from postroom import settings as settings_module
from postroom.celery import install

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["app"]

settings = settings_module.load()
app = Celery("divided", broker=settings.redis_url)


def topic_of(_: str, data: Mapping[str, Any]) -> str:
    """Return the topic of an event, which is that of its outbox partition."""
    return f"{settings.topic}-{data['part']}"


install(app, settings, topics=topic_of)
