"""Mounting: the page is put into a server of Flower's that is being made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom.celery.outbox_page import adapter
from postroom.celery.outbox_page.desk import Desk
from postroom.celery.outbox_page.handlers import routes
from postroom.inbox.topic_view import Topics
from postroom.telemetry.exposition import of_topics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from postroom.operations.wiring import Wiring

__all__ = ["loader", "mount"]


def loader(settings: Mapping[str, Any]) -> adapter.Loader:
    """Return what loads Flower's templates and the page's, for the settings of its server."""
    return adapter.Loader(adapter.template_path(settings))


def mount(server: Any, app: Celery, wiring: Wiring) -> None:
    """Add the page to a server, its topics to Flower's metrics, and begin to keep the last hour."""
    topics = Topics(wiring.settings, routed=wiring.routing.topics, consumed=wiring.consume)
    desk = Desk(app, wiring, topics)
    adapter.add(server, routes(desk))
    of_topics(desk.topics_for_metrics)
    desk.start()
