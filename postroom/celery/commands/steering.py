"""`celery -A tasks outbox pause`, `resume`, `prune` and `actions`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import click

from postroom.celery.commands import settings_of
from postroom.celery.commands.options import (
    dry_run_option,
    json_option,
    limit_option,
    partition_option,
    progress,
    require_yes,
    skip_option,
    yes_option,
)
from postroom.celery.commands.printing import print_done, print_json, print_table, time_shown
from postroom.celery.commands.services import database_of
from postroom.operations import actions as acts
from postroom.operations import pausing, pruning
from postroom.operations.actions import operator
from postroom.operations.choosing import chosen
from postroom.operations.done import Done

if TYPE_CHECKING:
    from pymongo.database import Database

    from postroom.operations.actions import Actor

__all__ = ["actions", "pause", "prune", "resume"]


@click.command()
@json_option
@partition_option
@click.pass_context
def pause(ctx: click.Context, /, *, partition: str | None, as_json: bool) -> None:
    """Have the relay of an outbox partition stand still, over restarts, until `resume`.

    It loses nothing: what is committed waits in the outbox.
    """
    named, news = _steered(ctx, partition, pausing.pause)
    text = "is paused now" if news else "was paused already"
    print_done({"paused": True, "news": news}, f"Outbox partition {named} {text}.", as_json=as_json)


@click.command()
@json_option
@partition_option
@click.pass_context
def resume(ctx: click.Context, /, *, partition: str | None, as_json: bool) -> None:
    """Have a paused outbox partition relayed again, from where it stood still."""
    named, news = _steered(ctx, partition, pausing.resume)
    text = "is relayed again" if news else "was not paused"
    print_done(
        {"paused": False, "news": news}, f"Outbox partition {named} {text}.", as_json=as_json
    )


@click.command()
@json_option
@partition_option
@click.option(
    "--days",
    type=click.FloatRange(min=0, max=36_500),
    help="Rows older than so many days; POSTROOM_RETENTION_DAYS unless given.",
)
@dry_run_option
@yes_option
@click.pass_context
def prune(
    ctx: click.Context,
    /,
    *,
    partition: str | None,
    days: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete old rows that were relayed, now; the relay does it by itself, little by little.

    Never a row that is unsent or in quarantine.
    """
    settings = settings_of(ctx)
    age = None if days is None else timedelta(days=days)
    with database_of(settings) as database:
        named = chosen(database, settings, partition)
        count = pruning.count(database, settings, partition=named, age=age)
        if dry_run:
            print_done({"would_be_pruned": count}, f"{count} would be pruned.", as_json=as_json)
            return
        if count:
            require_yes(f"Delete {count} relayed rows of outbox partition {named}?", yes=yes)
        gone = 0
        with progress("Pruning", unit="pruned") as told:

            def hear(rows: int) -> None:
                nonlocal gone
                gone += rows
                told(Done(asked=count, done=gone))

            done = pruning.prune(
                database, settings, actor=operator(), partition=named, age=age, told=hear
            )
    print_done({"pruned": done}, f"{done} pruned.", as_json=as_json)


@click.command()
@json_option
@limit_option
@skip_option
@click.pass_context
def actions(ctx: click.Context, /, *, limit: int, skip: int, as_json: bool) -> None:
    """Show what operators did, newest first: who, when, with which filter, how many, the result."""
    with database_of(settings_of(ctx)) as database:
        found = acts.latest(database, skip=skip, limit=limit)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            time_shown(each.began_at),
            f"{each.who} ({each.by})",
            each.what,
            each.target,
            " ".join(f"{name}={value}" for name, value in each.where.items()) or "-",
            each.count,
            each.result,
        )
        for each in found
    ]
    titles = ("began", "who", "what", "target", "filter", "count", "result")
    print_table(titles, rows, f"{len(found)} actions")


class _Steer(Protocol):
    def __call__(self, database: Database[Any], partition: str, *, actor: Actor) -> bool: ...


def _steered(ctx: click.Context, partition: str | None, steer: _Steer) -> tuple[str, bool]:
    """Return the outbox partition that was meant, and whether it is otherwise now."""
    settings = settings_of(ctx)
    with database_of(settings) as database:
        named = chosen(database, settings, partition)
        return named, steer(database, named, actor=operator())
