"""`celery -A tasks outbox status`: who relays each outbox partition, how far, and what waits."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from datetime import datetime
from typing import TYPE_CHECKING

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table

from postroom.celery.commands import settings_of
from postroom.celery.commands.options import json_option
from postroom.celery.commands.printing import cell, console, print_json, time_shown
from postroom.celery.commands.services import database_of
from postroom.counts import bound
from postroom.relay.watching.view import PartitionView, Views, views

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.settings import Settings

__all__ = ["status"]

NOT_ALL = (
    "Not all rows of the outbox were looked at, to be done in time: there may be rows of further "
    "outbox partitions that no relay was ever started for."
)
NONE_YET = "No relay has ever been started on this database."
EVERY_SECONDS = 2.0
# Celery needs the rest of two seconds to start.
ANSWER_SECONDS = 0.9


@click.command()
@json_option
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@click.pass_context
def status(ctx: click.Context, /, *, as_json: bool, watch: bool) -> None:
    """Show who relays each outbox partition, how far, and what waits; within two seconds."""
    settings = settings_of(ctx)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(settings, as_json=as_json)
        return
    found = _looked(settings)
    if as_json:
        print_json(found.partitions)
        if not found.complete:
            click.echo(NOT_ALL, err=True)
        return
    for each in _drawn(found):
        console().print(each)


def _looked(settings: Settings) -> Views:
    with database_of(settings, seconds=ANSWER_SECONDS) as database:
        return views(database)


def _watch(settings: Settings, *, as_json: bool) -> None:
    where = console()
    with Live(console=where, auto_refresh=False, transient=False) as live:
        while True:
            try:
                found = _looked(settings)
            except click.ClickException as error:
                if as_json or not where.is_terminal:
                    click.echo(error.message, err=True)
                else:
                    live.update(cell(error.message), refresh=True)
            else:
                if as_json:
                    print_json(found.partitions)
                elif not where.is_terminal:
                    # A file has no lines to write over: each look is there to be read.
                    where.print(*_drawn(found))
                else:
                    live.update(Group(*_drawn(found)), refresh=True)
            time.sleep(EVERY_SECONDS)


def _drawn(found: Views) -> Iterator[Table | str]:
    if not any(view.ever_relayed for view in found.partitions):
        yield NONE_YET
    for view in found.partitions:
        yield _table(view)
    if not found.complete:
        yield NOT_ALL


def _table(view: PartitionView) -> Table:
    table = Table(box=None, show_header=False, title=cell(f"outbox partition {view.partition}"))
    table.title_justify = "left"
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    if view.following:
        table.add_row("relay", cell("begins once what was before the change is consumed"))
    elif not view.ever_relayed:
        table.add_row("relay", cell("none was ever started for it: its rows wait"))
    if view.closed:
        table.add_row("closed", cell("the outbox was divided anew, and all of it is relayed"))
    if view.paused_by is not None:
        table.add_row("paused", cell("its relay stands still until `outbox resume`"))
    for name, value in dataclasses.asdict(view).items():
        if name == "partition" or value is None or isinstance(value, bool) or value in ([], ()):
            continue
        table.add_row(name.replace("_", " "), cell(f"{_bound(view, name)}{_shown(value)}"))
    if view.scanning:
        table.add_row("scanning", cell("the collection itself; what waits is not known"))
    return table


def _bound(view: PartitionView, name: str) -> str:
    cut_short = {"waiting": view.waiting_at_least, "quarantined_now": view.quarantined_more}
    return bound(more=cut_short.get(name, False))


def _shown(value: object) -> object:
    match value:
        case list() | tuple():
            return ", ".join(map(str, value))
        case datetime():
            return time_shown(value)
    return value
