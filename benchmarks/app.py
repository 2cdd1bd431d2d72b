"""A Celery application for the figures of the consumer: the same work one by one and in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery

from postroom import Event, handles
from postroom import settings as settings_module
from postroom.celery import install

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

settings = settings_module.load()
app = Celery("bench", broker=settings.redis_url)
install(app, settings)


@handles("One", name="bench.one")
def one(event: Event[dict[str, Any]], session: ClientSession) -> None:
    """Store one event."""
    done = session.client[settings.mongodb_database]["done"]
    done.insert_one({"n": event.data["n"]}, session=session)


@handles("Many", name="bench.many", batch=200)
def many(events: list[Event[dict[str, Any]]], session: ClientSession) -> None:
    """Store a batch of events."""
    done = session.client[settings.mongodb_database]["done"]
    done.insert_many([{"n": event.data["n"]} for event in events], session=session)
