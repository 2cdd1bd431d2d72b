"""The application whose consumers the chaos runs torment."""

from __future__ import annotations

import json
import os

from celery import Celery

from postroom import settings as settings_module
from postroom.celery import install

__all__ = ["app"]

settings = settings_module.load()
app = Celery("chaos", broker=settings.redis_url, backend=settings.redis_url)
app.conf.update(
    imports=[f"tests.chaos.handling.{name}" for name in ("ordinary", "auditing", "failing")],
    broker_connection_max_retries=None,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"socket_timeout": 2.0, "socket_connect_timeout": 2.0},
)
install(app, settings, consume=json.loads(os.environ["CHAOS_CONSUME"]))
