"""`celery -A tasks outbox metrics`: what database and broker tell without any worker."""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING

import click
from pymongo import errors as mongo

from postroom import broker, errors
from postroom.access import mongodb as mongodb_access
from postroom.celery.commands import settings_of, wiring_of
from postroom.celery.poller import Poller
from postroom.inbox.topic_view import Topics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postroom.inbox.topic_view import TopicRow
    from postroom.operations.wiring import Wiring

__all__ = ["metrics"]

LOOK_SECONDS = 10.0
NOT_INSTALLED = "prometheus-client is not installed: pip install 'postroom[metrics]'"


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), help="Answer /metrics there, until Ctrl-C.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address of that port.")
@click.pass_context
def metrics(ctx: click.Context, /, *, port: int | None, host: str) -> None:
    """Show what waits in outbox partitions and subscriptions, as Prometheus reads it.

    MongoDB and Pulsar's admin interface tell it; no worker is asked.

    Once, as for node_exporter's textfile collector, or with --port for as long as it runs.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest

        from postroom.telemetry.endpoint import Endpoint
        from postroom.telemetry.exposition import of_the_database, of_topics
        from postroom.telemetry.health import Health
    except ModuleNotFoundError:
        raise click.ClickException(NOT_INSTALLED) from None
    settings, registry, health = settings_of(ctx), CollectorRegistry(), Health()
    partitions = of_the_database(settings, registry=registry)
    of_topics(_topics(wiring_of(ctx), once=port is None), registry=registry)
    if port is None:
        try:
            partitions.look_once()
        except mongo.PyMongoError as error:
            where = broker.masked(settings.mongodb_uri)
            why = mongodb_access.why(error, settings.mongodb_uri)
            raise click.ClickException(f"MongoDB at {where} failed ({why})") from error
        click.echo(generate_latest(registry).decode(), nl=False)
        return
    try:
        endpoint = Endpoint(host, port, registry=registry, health=health)
    except errors.ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    health.ready()
    endpoint.start()
    click.echo(f"Answering {endpoint.url}/metrics; end it with Ctrl-C.", err=True)
    threading.Event().wait()


def _topics(wiring: Wiring, *, once: bool) -> Callable[[], Sequence[TopicRow] | None]:
    """Return what tells of the topics: looked at now, or every few seconds while it is asked."""
    topics = Topics(wiring.settings, routed=wiring.routing.topics, consumed=wiring.consume)

    def look() -> list[TopicRow]:
        return topics.look(())

    if once:
        return functools.partial(_or_none, look)
    poller = Poller("topics", look, why=str, every=LOOK_SECONDS, idle=LOOK_SECONDS)
    poller.start()

    def seen() -> Sequence[TopicRow] | None:
        found = poller.seen()
        return None if found.trouble else found.value

    return seen


def _or_none(look: Callable[[], Sequence[TopicRow]]) -> Sequence[TopicRow] | None:
    with contextlib.suppress(errors.PostroomError):
        return look()
    return None
