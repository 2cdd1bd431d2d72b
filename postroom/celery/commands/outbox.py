"""`celery -A tasks outbox …`: how far each partition is relayed, and the rows that could not be."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import click
from pymongo import errors as mongo
from rich.console import Console
from rich.table import Table

from postroom import broker
from postroom.access import mongodb as mongodb_access
from postroom.celery.commands import cell, json_line, settings_of, shown
from postroom.celery.commands.metrics import metrics
from postroom.relay.watching.view import PartitionView, views
from postroom.store import clients
from postroom.store.quarantine import Quarantine
from postroom.store.values import OutboxPartition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pymongo.database import Database

    from postroom.settings import Settings

__all__ = ["outbox"]

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
NOT_ALL = (
    "Not all rows of the outbox were looked at, to be done in time: there may be rows of further "
    "outbox partitions that no relay was ever started for."
)
partition_option = click.option("--partition", help="POSTROOM_PARTITION unless given.")


@click.group("outbox")
def outbox() -> None:
    """Look at the outbox, and repair what could not be relayed."""


outbox.add_command(metrics)


@outbox.command()
@json_option
@click.pass_context
def status(ctx: click.Context, /, *, as_json: bool) -> None:
    """Show who relays each outbox partition, how far, and what waits; within two seconds."""
    with _database(settings_of(ctx)) as database:
        found = views(database)
    if as_json:
        for view in found.partitions:
            click.echo(json_line(dataclasses.asdict(view)))
    else:
        if not any(view.ever_relayed for view in found.partitions):
            click.echo("No relay has ever been started on this database.")
        for view in found.partitions:
            _show(view)
    if not found.complete:
        click.echo(NOT_ALL, err=as_json)


@outbox.group("quarantine")
def quarantine() -> None:
    """Rows that could never be sent, set aside with the reason."""


@quarantine.command("list")
@json_option
@partition_option
@click.option("--limit", default=100, show_default=True, help="Stop after so many.")
@click.pass_context
def list_(ctx: click.Context, /, *, partition: str | None, limit: int, as_json: bool) -> None:
    """List quarantined rows, oldest first, without their data."""
    with _quarantine(ctx, partition) as rows:
        found = rows.entries(limit=limit)
    if as_json:
        for entry in found:
            click.echo(json_line(dataclasses.asdict(entry)))
        return
    table = Table(box=None)
    for title in ("row", "position", "quarantined", "reason"):
        table.add_column(title, overflow="fold")
    for entry in found:
        at = f"{entry.quarantined_at:%Y-%m-%d %H:%M:%S}" if entry.quarantined_at else "-"
        table.add_row(*map(cell, (entry.row_id, entry.position, at, entry.reason)))
    Console().print(table)
    Console().print(f"{len(found)} quarantined rows", style="dim")


@quarantine.command()
@partition_option
@click.option("--id", "ids", multiple=True, help="Only this row; may be given several times.")
@click.option("--all", "everything", is_flag=True, help="All quarantined rows of the partition.")
@click.pass_context
def retry(
    ctx: click.Context, /, *, partition: str | None, ids: tuple[str, ...], everything: bool
) -> None:
    """Have quarantined rows relayed as they are now, behind all that is in the outbox.

    Mend the rows first: one that still cannot be sent goes into quarantine again.
    """
    with _quarantine(ctx, partition) as rows:
        chosen = _chosen(rows, ids, everything=everything)
        done = sum(rows.retry(row_id) for row_id in chosen)
    others = len(chosen) - done
    click.echo(
        f"{done} put back"
        + (f", {others} gone from the outbox, or put back by another meanwhile." if others else ".")
    )


@quarantine.command()
@partition_option
@click.option("--id", "ids", multiple=True, help="Only this row; may be given several times.")
@click.option("--all", "everything", is_flag=True, help="All quarantined rows of the partition.")
@click.pass_context
def discard(
    ctx: click.Context, /, *, partition: str | None, ids: tuple[str, ...], everything: bool
) -> None:
    """Forget quarantined rows: they are not sent, and pruned like those that were."""
    with _quarantine(ctx, partition) as rows:
        done = rows.discard(_chosen(rows, ids, everything=everything))
    click.echo(f"{done} discarded.")


def _chosen(rows: Quarantine, ids: Sequence[str], *, everything: bool) -> list[Any]:
    if bool(ids) is everything:
        raise click.UsageError("Say which rows: --id, or --all")
    known = {str(entry.row_id): entry.row_id for entry in rows.entries()}
    unknown = [row_id for row_id in ids if row_id not in known]
    if unknown:
        raise click.ClickException(
            f"Not in quarantine: {shown(', '.join(unknown))}; nothing was done"
        )
    return list(known.values()) if everything else [known[row_id] for row_id in ids]


@contextlib.contextmanager
def _quarantine(ctx: click.Context, partition: str | None) -> Iterator[Quarantine]:
    settings = settings_of(ctx)
    with _database(settings) as database:
        yield Quarantine(database, partition=OutboxPartition(partition or settings.partition))


@contextlib.contextmanager
def _database(settings: Settings) -> Iterator[Database[Any]]:
    """Lend the database; turn the driver's errors into a sentence."""
    try:
        with clients.for_command_line(settings.mongodb_uri) as mongodb:
            yield mongodb[settings.mongodb_database]
    except mongo.PyMongoError as error:
        where = broker.masked(settings.mongodb_uri)
        raise click.ClickException(
            f"MongoDB at {where} failed ({mongodb_access.why(error, settings.mongodb_uri)})"
        ) from error


def _show(view: PartitionView) -> None:
    table = Table(box=None, show_header=False, title=cell(f"outbox partition {view.partition}"))
    table.title_justify = "left"
    if not view.ever_relayed:
        table.add_row("relay", cell("none was ever started for it: its rows wait"))
    for name, value in dataclasses.asdict(view).items():
        if name == "partition" or value is None or isinstance(value, bool) or value in ([], ()):
            continue
        joined = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        at_least = "at least " if name == "waiting" and view.waiting_at_least else ""
        table.add_row(name.replace("_", " "), cell(f"{at_least}{joined}"))
    if view.scanning:
        table.add_row("scanning", cell("the collection itself; what waits is not known"))
    Console().print(table)
