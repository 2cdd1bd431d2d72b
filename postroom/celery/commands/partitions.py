"""`celery -A tasks outbox partitions`: how the outbox is divided, and how it is divided anew."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from postroom.celery.commands import settings_of, wiring_of
from postroom.celery.commands.options import json_option, require_yes, yes_option
from postroom.celery.commands.printing import print_json, print_table
from postroom.celery.commands.services import database_of
from postroom.celery.commands.terminal import shown
from postroom.operations import dividing
from postroom.operations.actions import operator
from postroom.partitioning import MOST_PARTITIONS

if TYPE_CHECKING:
    from postroom.settings import Settings

__all__ = ["partitions"]

ASKED = "Writers are refused from now on where they have another POSTROOM_PARTITIONS than"


@click.command()
@json_option
@click.option(
    "--to",
    type=click.IntRange(min=1, max=MOST_PARTITIONS),
    help="Divide the outbox into so many instead, for all writers and relays.",
)
@yes_option
@click.pass_context
def partitions(ctx: click.Context, /, *, as_json: bool, to: int | None, yes: bool) -> None:
    """Show into how many outbox partitions the outbox is divided, or divide it anew.

    A change closes the old ones, and has writers write into the new ones, whose relays begin when
    the old ones are relayed and consumed. No key loses its order. Interrupted, it is finished by
    being called again.
    """
    settings = settings_of(ctx)
    if to is not None:
        _change(ctx, settings, to, yes=yes)
    _show(settings, as_json=as_json)


def _change(ctx: click.Context, settings: Settings, to: int, *, yes: bool) -> None:
    def told(sentence: str) -> None:
        click.echo(shown(sentence), err=True)

    def asks(sentence: str) -> None:
        told(sentence)
        require_yes("Have they?", yes=yes)

    with database_of(settings) as database:
        change = dividing.Change(database, wiring_of(ctx), to, told=told, asks=asks)
        if not change.is_done():
            require_yes(f"{ASKED} {to}. Begin?", yes=yes)
        try:
            done = change.run(actor=operator())
        except KeyboardInterrupt:
            told(f"Interrupted: call it again, with --to {to}, to have it finished.")
            raise
    told(
        f"It had {to} outbox partitions already."
        if done is None
        else f"Done: relays with POSTROOM_PARTITIONS={to} begin."
    )


def _show(settings: Settings, *, as_json: bool) -> None:
    with database_of(settings) as database:
        record = dividing.divided(database, settings.partition)
        there = record.partitioning
        found = list(dividing.parts(database, there))
    if as_json:
        print_json(
            [
                {
                    "outbox": there.base,
                    "count": there.count,
                    "generation": there.generation,
                    "next_count": record.next_count,
                    "closed": record.closed_at is not None,
                    "next_written": record.next_is_written,
                    "partitions": [dataclasses.asdict(each) for each in found],
                }
            ]
        )
        return
    rows = [
        (each.partition, each.owner or "-", "-" if each.waiting is None else each.waiting)
        for each in found
    ]
    footer = f"{there.count} outbox partitions, generation {there.generation}"
    if record.next_count is not None:
        footer += f"; being changed to {record.next_count}: call --to {record.next_count} again"
    print_table(("outbox partition", "relay", "waiting"), rows, footer)
