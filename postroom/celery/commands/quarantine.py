"""`celery -A tasks outbox quarantine …`: rows that could never be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from postroom.celery.commands import wiring_of
from postroom.celery.commands.options import (
    dry_run_option,
    filter_of,
    filter_options,
    json_option,
    limit_option,
    partition_option,
    progress,
    rate_option,
    require_found,
    require_yes,
    skip_option,
    yes_option,
)
from postroom.celery.commands.printing import print_done, print_excerpt, print_json, time_shown
from postroom.celery.commands.services import database_of
from postroom.celery.commands.terminal import shown
from postroom.operations import quarantined
from postroom.operations.actions import operator
from postroom.operations.choosing import chosen
from postroom.operations.filters import Filter, kind_of

if TYPE_CHECKING:
    from pymongo.database import Database

    from postroom.operations.done import Done
    from postroom.operations.filters import Excerpt
    from postroom.store.quarantine_search import FoundEntry

__all__ = ["quarantine"]

TITLES = ("row", "name", "position", "quarantined", "kind", "reason")
everything_option = click.option(
    "--all", "everything", is_flag=True, help="All quarantined rows of the partition."
)


@click.group("quarantine")
def quarantine() -> None:
    """Rows that could never be sent, set aside with the reason."""


@quarantine.command("list")
@json_option
@partition_option
@limit_option
@skip_option
@filter_options
@click.pass_context
def list_(
    ctx: click.Context,
    /,
    *,
    partition: str | None,
    limit: int,
    skip: int,
    as_json: bool,
    **given: Any,
) -> None:
    """List quarantined rows, oldest first, without their data."""
    wiring = wiring_of(ctx)
    with database_of(wiring.settings) as database:
        named = chosen(database, wiring.settings, partition)
        page = quarantined.page(
            database,
            filter_of(given),
            partition=named,
            key_field=wiring.key_field,
            skip=skip,
            limit=limit,
        )
    if as_json:
        print_json(page.items)
        return
    print_excerpt(TITLES, page, _row, noun="quarantined rows")


def _row(found: FoundEntry) -> tuple[object, ...]:
    reason = f"{found.reason} (gone from the outbox)" if found.gone else found.reason
    return (
        found.row_id,
        found.name or "-",
        "-" if found.position is None else found.position,
        time_shown(found.quarantined_at),
        kind_of(found.reason) or "-",
        reason,
    )


@quarantine.command()
@json_option
@partition_option
@everything_option
@rate_option
@dry_run_option
@filter_options
@click.pass_context
def redrive(
    ctx: click.Context,
    /,
    *,
    partition: str | None,
    everything: bool,
    rate: float | None,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Have quarantined rows relayed as they are now, behind all that is in the outbox.

    Mend the rows first: one that still cannot be sent goes into quarantine again.
    """
    wiring, where = wiring_of(ctx), _meant(given, everything=everything)
    with database_of(wiring.settings) as database:
        named = chosen(database, wiring.settings, partition)
        of = {"partition": named, "key_field": wiring.key_field}
        _require_found(database, where, named)
        if dry_run:
            count = quarantined.count(database, where, **of)
            print_done({"would_be_put_back": count}, f"{count} would be put back.", as_json=as_json)
            return
        with progress("Putting rows back", unit="put back") as told:
            done = quarantined.redrive(
                database, where, actor=operator(), rate_per_second=rate, told=told, **of
            )
    others = ", {} gone from the outbox, waiting for their topic, or put back by another meanwhile."
    text = f"{done.done} put back" + (others.format(done.left) if done.left else ".")
    print_done({"put_back": done.done, "left": done.left}, text, as_json=as_json)


@quarantine.command("retry", hidden=True, params=redrive.params, help=redrive.help)
@click.pass_context
def retry(ctx: click.Context, /, **given: Any) -> None:
    """Redrive, by the name that it had."""
    ctx.invoke(redrive, **given)


@quarantine.command()
@json_option
@partition_option
@everything_option
@rate_option
@dry_run_option
@yes_option
@filter_options
@click.pass_context
def discard(
    ctx: click.Context,
    /,
    *,
    partition: str | None,
    everything: bool,
    rate: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Forget quarantined rows: they are not sent, and pruned like those that were."""
    wiring, where = wiring_of(ctx), _meant(given, everything=everything)
    with database_of(wiring.settings) as database:
        named = chosen(database, wiring.settings, partition)
        of = {"partition": named, "key_field": wiring.key_field}
        _require_found(database, where, named)
        count = quarantined.count(database, where, **of)
        if dry_run:
            print_done(
                {"would_be_discarded": count}, f"{count} would be discarded.", as_json=as_json
            )
            return
        if count:
            require_yes(f"Discard {count} quarantined rows of {shown(named)}, unsent?", yes=yes)
        with progress("Discarding rows", unit="discarded") as told:
            done: Done = quarantined.discard(
                database, where, actor=operator(), rate_per_second=rate, told=told, **of
            )
    print_done({"discarded": done.done}, f"{done.done} discarded.", as_json=as_json)


def _meant(given: dict[str, Any], *, everything: bool) -> Filter:
    where = filter_of(given)
    if where.is_all is not everything:
        raise click.UsageError("Say which rows: --id, another filter, or --all alone")
    return where


def _require_found(database: Database[Any], where: Filter, partition: str) -> None:
    def page(ids: Filter) -> Excerpt[FoundEntry]:
        return quarantined.page(database, ids, partition=partition, limit=len(ids.ids))

    require_found(where, page, absent="Not in quarantine")
