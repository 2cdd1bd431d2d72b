"""`celery -A tasks outbox scheduled …`: events that are due later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from postroom.celery.commands import wiring_of
from postroom.celery.commands.options import (
    AHEAD,
    dry_run_option,
    filter_of,
    filter_options,
    json_option,
    limit_option,
    named_partition,
    progress,
    rate_option,
    require_found,
    require_yes,
    skip_option,
    yes_option,
)
from postroom.celery.commands.printing import (
    print_done,
    print_excerpt,
    print_json,
    print_pairs,
    time_shown,
)
from postroom.celery.commands.services import database_of
from postroom.celery.commands.terminal import shown
from postroom.operations import scheduled as plan
from postroom.operations.actions import operator

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from pymongo.database import Database

    from postroom.operations.done import Done
    from postroom.operations.filters import Excerpt, Filter
    from postroom.store.scheduled_search import Scheduled

__all__ = ["scheduled"]

TITLES = ("event", "name", "schedule", "due", "refused")
outbox_option = click.option(
    "--partition", help="The outbox, by its outbox partitions' name; POSTROOM_PARTITION's."
)
schedule_option = click.option("--schedule", help="Only the event that waits under this name.")
everything_option = click.option(
    "--all", "everything", is_flag=True, help="All scheduled events of the outbox."
)


@click.group("scheduled")
def scheduled() -> None:
    """Events that are due later: by when that is, under the names that they were given."""


@scheduled.command("list")
@json_option
@outbox_option
@limit_option
@skip_option
@schedule_option
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
    """List scheduled events in the order in which they are due, without their data.

    --from and --to say when that is; --reason is why one cannot go into the outbox.
    """
    wiring = wiring_of(ctx)
    named = named_partition(partition) or wiring.settings.partition
    schedule, where = given.pop("schedule"), filter_of(given)
    with database_of(wiring.settings) as database:
        page = plan.page(
            database,
            where,
            outbox=named,
            schedule=schedule,
            key_field=wiring.key_field,
            skip=skip,
            limit=limit,
        )
    if as_json:
        print_json(page.items)
        return
    print_excerpt(TITLES, page, _row, noun="scheduled events")


@scheduled.command()
@json_option
@click.argument("event_id")
@click.pass_context
def show(ctx: click.Context, /, *, event_id: str, as_json: bool) -> None:
    """Show one scheduled event by its id, without its data; also a while after it was fired."""
    with database_of(wiring_of(ctx).settings) as database:
        found = plan.one(database, event_id)
    if found is None:
        raise click.ClickException(f"Not scheduled: {shown(event_id)}")
    if as_json:
        print_json([found])
        return
    print_pairs([*zip(TITLES, _row(found), strict=True), ("fired", time_shown(found.fired_at))])


@scheduled.command()
@json_option
@outbox_option
@everything_option
@rate_option
@dry_run_option
@yes_option
@schedule_option
@filter_options
@click.pass_context
def cancel(ctx: click.Context, /, *, yes: bool, **given: Any) -> None:
    """Cancel scheduled events: they are never sent."""

    def act(database: Database[Any], where: Filter, told: Callable[..., None], of: Any) -> Done:
        return plan.cancel(database, where, actor=operator(), told=told, **of)

    _act(ctx, given, act, words=("Cancel", "cancelled"), yes=yes)


@scheduled.command()
@json_option
@outbox_option
@everything_option
@rate_option
@dry_run_option
@schedule_option
@click.option("--at", type=AHEAD, required=True, help="When they are due: a time, or 2h from now.")
@filter_options
@click.pass_context
def reschedule(ctx: click.Context, /, *, at: datetime | timedelta, **given: Any) -> None:
    """Have scheduled events be due at another time."""

    def act(database: Database[Any], where: Filter, told: Callable[..., None], of: Any) -> Done:
        return plan.reschedule(database, where, actor=operator(), at=at, told=told, **of)

    _act(ctx, given, act, words=("Reschedule", "rescheduled"))


@scheduled.command()
@json_option
@outbox_option
@everything_option
@rate_option
@dry_run_option
@schedule_option
@filter_options
@click.pass_context
def fire(ctx: click.Context, /, **given: Any) -> None:
    """Have scheduled events be due now, and those tried again that were left."""

    def act(database: Database[Any], where: Filter, told: Callable[..., None], of: Any) -> Done:
        return plan.reschedule(database, where, actor=operator(), at=None, told=told, **of)

    _act(ctx, given, act, words=("Fire", "fired"))


def _act(
    ctx: click.Context,
    given: dict[str, Any],
    act: Callable[[Database[Any], Filter, Callable[..., None], Any], Done],
    *,
    words: tuple[str, str],
    yes: bool = True,
) -> None:
    wiring, (verb, past) = wiring_of(ctx), words
    named = named_partition(given.pop("partition")) or wiring.settings.partition
    everything, dry_run = given.pop("everything"), given.pop("dry_run")
    as_json, schedule, rate = (given.pop(name) for name in ("as_json", "schedule", "rate"))
    where = filter_of(given)
    if (where.is_all and schedule is None) is not everything:
        raise click.UsageError("Say which events: --id, --schedule, another filter, or --all alone")
    of = {"outbox": named, "schedule": schedule, "key_field": wiring.key_field}
    with database_of(wiring.settings) as database:
        _require_found(database, where, named)
        count = plan.count(database, where, **of)
        if where.is_all and not count:
            _require_named(schedule)
        if dry_run:
            print_done({f"would_be_{past}": count}, f"{count} would be {past}.", as_json=as_json)
            return
        if count:
            require_yes(f"{verb} {count} scheduled events of {shown(named)}?", yes=yes)
        with progress(f"{verb}: scheduled events", unit=past) as told:
            done = act(database, where, told, {**of, "rate_per_second": rate})
    others = f", {done.left} due or cancelled meanwhile." if done.left else "."
    print_done({past: done.done, "left": done.left}, f"{done.done} {past}{others}", as_json=as_json)


def _row(found: Scheduled) -> tuple[object, ...]:
    return (
        found.row_id,
        found.name or "-",
        found.schedule or "-",
        time_shown(found.due_at),
        found.refused or "-",
    )


def _require_named(schedule: str | None) -> None:
    # As with ids: a name that is mistyped would be passed by without a word.
    if schedule is not None:
        raise click.ClickException(f"Not scheduled: {shown(schedule)}; nothing was done")


def _require_found(database: Database[Any], where: Filter, outbox: str) -> None:
    def page(ids: Filter) -> Excerpt[Scheduled]:
        return plan.page(database, ids, outbox=outbox, limit=len(ids.ids))

    require_found(where, page, absent="Not scheduled")
