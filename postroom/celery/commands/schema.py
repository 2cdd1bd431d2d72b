"""`celery -A tasks outbox schema`: what the application's events look like, what changed."""

from __future__ import annotations

import json
from typing import IO, Any

import click

from postroom import errors
from postroom.celery.commands import wiring_of
from postroom.celery.commands.options import json_option
from postroom.operations import breaking, schemas

__all__ = ["schema"]


@click.command()
@json_option
@click.option("--asyncapi", is_flag=True, help="As an AsyncAPI document of topics and events.")
@click.option("--title", default="Events", show_default=True, help="Its title.")
@click.option("--release", default="1.0.0", show_default=True, help="Its version.")
@click.option(
    "--against",
    type=click.File(encoding="utf-8"),
    help="Compare with what an earlier release has printed: breaking changes end with code 1.",
)
@click.pass_context
def schema(
    ctx: click.Context,
    /,
    *,
    asyncapi: bool,
    title: str,
    release: str,
    against: IO[str] | None,
    as_json: bool,
) -> None:
    """Print the JSON Schema of all events whose classes the application imports.

    That is JSON in any case, with --json in one line; what --against finds is then a list.
    """
    routing = wiring_of(ctx).routing
    found = schemas.classes()
    if against is not None:
        _compare(against, schemas.exported(found), as_json=as_json)
        return
    try:
        shown = (
            schemas.asyncapi(found, routing, title=title, version=release)
            if asyncapi
            else schemas.exported(found)
        )
    except errors.ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps(shown, indent=None if as_json else 2, sort_keys=True, default=str))


def _compare(against: IO[str], after: dict[str, Any], *, as_json: bool) -> None:
    try:
        sentences = breaking.changes(json.load(against), after)
    except (ValueError, errors.ConfigurationError) as error:
        said = error if isinstance(error, errors.ConfigurationError) else "It is no JSON"
        raise click.ClickException(str(said)) from None
    if as_json:
        click.echo(json.dumps(sentences))
    else:
        click.echo("\n".join(sentences) or "Nothing breaks")
    if sentences:
        raise click.ClickException(f"{len(sentences)} changes break consumers or stored events")
