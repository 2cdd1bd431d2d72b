"""`celery -A tasks outbox metrics`: what the database tells of every outbox partition."""

from __future__ import annotations

import threading

import click
from pymongo import errors as mongo

from postroom import broker, errors
from postroom.access import mongodb as mongodb_access
from postroom.celery.commands import settings_of

__all__ = ["metrics"]

NOT_INSTALLED = "prometheus-client is not installed: pip install 'postroom[metrics]'"


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), help="Answer /metrics there, until Ctrl-C.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address of that port.")
@click.pass_context
def metrics(ctx: click.Context, /, *, port: int | None, host: str) -> None:
    """Show backlog and age of every outbox partition as Prometheus reads them; no relay is asked.

    Once, as for node_exporter's textfile collector, or with --port for as long as it runs.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest

        from postroom.telemetry.endpoint import Endpoint
        from postroom.telemetry.exposition import of_the_database
        from postroom.telemetry.health import Health
    except ModuleNotFoundError:
        raise click.ClickException(NOT_INSTALLED) from None
    settings, registry, health = settings_of(ctx), CollectorRegistry(), Health()
    partitions = of_the_database(settings, registry=registry)
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
