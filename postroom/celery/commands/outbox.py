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
from postroom.relay.overview import Overview, overview
from postroom.store import clients
from postroom.store.quarantine import Quarantine
from postroom.store.values import OutboxPartition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pymongo.database import Database

    from postroom.settings import Settings

__all__ = ["outbox"]

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
partition_option = click.option("--partition", help="POSTROOM_PARTITION unless given.")


@click.group("outbox")
def outbox() -> None:
    """Look at the outbox, and repair what could not be relayed."""


@outbox.command()
@json_option
@click.pass_context
def status(ctx: click.Context, /, *, as_json: bool) -> None:
    """Show who relays each partition, how far, and what waits."""
    with _database(settings_of(ctx)) as database:
        found = overview(database)
    if as_json:
        for partition in found:
            click.echo(json_line(dataclasses.asdict(partition)))
        return
    if not found:
        click.echo("No relay has ever been started on this database.")
    for partition in found:
        _show(partition)


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


def _show(partition: Overview) -> None:
    table = Table(box=None, show_header=False, title=cell(f"partition {partition.partition}"))
    table.title_justify = "left"
    for name, value in dataclasses.asdict(partition).items():
        if name == "partition" or value is None or value is False or value == []:
            continue
        joined = ", ".join(map(str, value)) if isinstance(value, list) else value
        table.add_row(name.replace("_", " "), cell(joined))
    Console().print(table)
