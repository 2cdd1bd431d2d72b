"""`celery -A tasks outbox tail`: the events that were written last, and those that are now."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import click

from postroom.celery.commands import wiring_of
from postroom.celery.commands.options import json_option, named_partition
from postroom.celery.commands.printing import json_line, time_shown
from postroom.celery.commands.services import database_of
from postroom.celery.commands.terminal import shown
from postroom.events import id_text
from postroom.operations.filters import Filter
from postroom.operations.tailing import Tailing, Written

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["tail"]


@click.command()
@json_option
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written, until Ctrl-C.")
@click.option("--partition", help="Only this outbox partition.")
@click.option("--name", help="Only events of this name.")
@click.option("--key", help="Only events of this key.")
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(min=0, max=100_000),
    default=10,
    show_default=True,
    help="Begin with so many.",
)
@click.pass_context
def tail(
    ctx: click.Context,
    /,
    *,
    follow: bool,
    partition: str | None,
    name: str | None,
    key: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show the newest events of the outbox: when, id, partition and name; no data.

    Data and keys are shown with POSTROOM_SHOW_PAYLOADS=1 alone.
    """
    wiring = wiring_of(ctx)
    shape = _shape(as_json=as_json, private=not wiring.settings.show_payloads)
    named_partition(partition)
    with database_of(wiring.settings) as database, contextlib.suppress(KeyboardInterrupt):
        Filter(name=name, key=key)  # refuses what nothing could have
        newest = Tailing(
            database, partition=partition, name=name, key=key, key_field=wiring.key_field
        )
        for event in newest.latest(limit=limit) if limit else ():
            click.echo(shape(event))
        if follow:
            for each in newest.follow():
                if each is not None:
                    click.echo(shape(each))


def _shape(*, as_json: bool, private: bool) -> Callable[[Written], str]:
    def line(event: Written) -> str:
        fields = dataclasses.asdict(event)
        if private:
            del fields["data"], fields["key"]
        if as_json:
            return json_line(fields)
        texts = [time_shown(event.occurred_at), id_text(event.row_id), event.partition]
        texts.append(event.name or "(no event)")
        texts += [] if private else [str(event.key or "-"), json_line(event.data)]
        return "  ".join(map(shown, texts))

    return line
