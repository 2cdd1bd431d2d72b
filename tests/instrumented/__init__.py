"""A Celery application with the instruments that others hang on theirs: what they see is written.

INSTRUMENTS names those that are on (signals, otel, sentry); each writes an object a line to the
file of INSTRUMENTS_FILE.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Celery, current_task

from postroom import Event, Reject, Retry, handles
from postroom import settings as settings_module
from postroom.celery import install
from tests.instrumented import instruments

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

logger = logging.getLogger(__name__)
settings = settings_module.load()
app = Celery(
    "instrumented",
    broker=settings.redis_url,
    backend=settings.redis_url,
    task_cls="tests.own_task:OwnTask" if os.environ.get("OWN_TASK") else None,
)
app.conf.update(json.loads(os.environ.get("CELERY_CONF", "{}")))
install(app, settings)
instruments.hang_on(
    os.environ.get("INSTRUMENTS", "").split(), Path(os.environ.get("INSTRUMENTS_FILE", os.devnull))
)


@handles("Logged*")
def log(event: Event[dict[str, Any]]) -> None:
    """Log something."""
    logger.info("a handler has logged %s", event.name)


@handles("Written")
def write(event: Event[dict[str, Any]], session: ClientSession) -> None:
    """Write something in the handler's transaction."""
    seen = session.client[settings.mongodb_database]["seen"]
    seen.insert_one({"event": event.id}, session=session)


_tried: set[str] = set()


@handles("Flaky")
def flaky(event: Event[dict[str, Any]]) -> None:
    """Fail once."""
    if event.id not in _tried:
        _tried.add(event.id)
        raise Retry("not yet", after=timedelta(seconds=0.1))


@handles("Poison")
def poison(_event: Event[dict[str, Any]]) -> None:
    """Fail for good."""
    raise Reject("never")


@handles("Together", name="instrumented.together", group=16, max_attempts=1)
def together(event: Event[dict[str, Any]], session: ClientSession) -> None:
    """Write what is seen of the task within; take a while, or fail, where the event says so."""
    seen = session.client[settings.mongodb_database]["seen"]
    where = f"{session.session_id['id']}:{session._transaction_id}"
    seen.insert_one(
        {"event": event.id, "task": current_task.request.id, "in": where}, session=session
    )
    if event.data.get("blocks"):
        threading.Event().wait(1)
    if event.data.get("fails"):
        raise ValueError("one of a group")
