"""The Celery application."""

from celery import Celery

from postroom.celery import install
from workers import relay

__all__ = ["app"]

app = Celery("aid-kit")
app.config_from_object("celeryconfig")
install(app, topics=relay.TOPICS)
