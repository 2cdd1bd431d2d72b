"""`celery -A tasks outbox import`: what a hand-made outbox has not sent yet goes into this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from bson import json_util

from postroom.celery.commands import wiring_of
from postroom.celery.commands.options import (
    dry_run_option,
    json_option,
    progress,
    rate_option,
    require_yes,
    yes_option,
)
from postroom.celery.commands.printing import print_json
from postroom.celery.commands.services import database_of
from postroom.celery.commands.terminal import shown
from postroom.operations import importing
from postroom.operations.actions import operator
from postroom.operations.importing import OldOutbox

if TYPE_CHECKING:
    from postroom.operations.done import Done

__all__ = ["import_"]


def _object(_ctx: Any, option: click.Option, value: str | None) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        found = json_util.loads(value)
    except (ValueError, TypeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise click.BadParameter("it is no JSON object", param_hint=option.opts[0])
    return found


@click.command("import")
@json_option
@click.argument("collection")
@click.option("--database", help="Its database, of the same MongoDB; POSTROOM_MONGODB_DATABASE.")
@click.option(
    "--unsent",
    callback=_object,
    help='MongoDB\'s filter for what was not sent, as JSON. [default: {"sentAt": null}]',
)
@click.option(
    "--mark",
    callback=_object,
    help="The fields that are set in what was imported, as JSON. [default: sentAt, to the time]",
)
@click.option("--order", default="_id", show_default=True, help="The field by which they go.")
@click.option("--name", help="What all events are called.")
@click.option("--name-field", default="name", show_default=True, help="Where the name is.")
@click.option("--data-field", default="data", show_default=True, help="Object, or JSON as text.")
@click.option("--key-field", help="Where the key is, of events whose class names none.")
@click.option("--headers-field", help="Where an object with headers is.")
@rate_option
@dry_run_option
@yes_option
@click.pass_context
def import_(
    ctx: click.Context,
    /,
    *,
    rate: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Import what a hand-made polling outbox has not sent yet, in order, each once.

    Each row is marked as sent in the transaction that writes its event, so that this may be ended
    and run again; stop what polls before. Its id becomes the header legacy-id. Fields within
    objects are named as payload.name.
    """
    wiring = wiring_of(ctx)
    source = OldOutbox(**{name: value for name, value in given.items() if value is not None})
    with database_of(wiring.settings) as database:
        found = importing.examined(database, wiring, source)
        if dry_run:
            count = {"would_be_imported": (found.asked or 0) - found.left, "left": found.left}
            _print(count, f"{count['would_be_imported']} would be imported", found, as_json=as_json)
            return
        if found.asked:
            require_yes(f"Import {found.asked} rows of {shown(source.collection)}?", yes=yes)
        with progress("Importing", unit="imported") as told:
            done = importing.import_all(
                database, wiring, source, actor=operator(), rate_per_second=rate, told=told
            )
    _print(
        {"imported": done.done, "left": done.left}, f"{done.done} imported", done, as_json=as_json
    )


def _print(value: dict[str, int], text: str, done: Done, *, as_json: bool) -> None:
    if as_json:
        print_json([value])
    else:
        click.echo(f"{text}, {done.left} left: they are no events." if done.left else f"{text}.")
    for sentence in done.refused:
        click.echo(shown(sentence), err=True)
