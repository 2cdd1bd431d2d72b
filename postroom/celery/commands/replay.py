"""`celery -A tasks outbox replay`: old events sent again, to another topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from postroom.celery.commands import wiring_of
from postroom.celery.commands.options import (
    WHEN,
    dry_run_option,
    json_option,
    partition_option,
    progress,
    rate_option,
    require_yes,
    yes_option,
)
from postroom.celery.commands.printing import print_done
from postroom.celery.commands.services import database_of
from postroom.celery.commands.terminal import shown
from postroom.operations import replaying
from postroom.operations.actions import operator
from postroom.operations.choosing import chosen
from postroom.operations.filters import Filter
from postroom.operations.replaying import OldEvents

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["replay"]


@click.command()
@json_option
@partition_option
@click.option("--from", "since", type=WHEN, required=True, help="Events that occurred then: 2h.")
@click.option("--to", "until", type=WHEN, required=True, help="… and before: a time, or 1h.")
@click.option("--name", help="Only events of this name.")
@click.option("--to-topic", required=True, help="Where they are sent to.")
@click.option(
    "--onto-original",
    is_flag=True,
    help="Allow a topic that the relay sends to, whose subscriptions all read them again. Pause "
    "its relay for that time.",
)
@rate_option
@dry_run_option
@yes_option
@click.pass_context
def replay(
    ctx: click.Context,
    /,
    *,
    partition: str | None,
    since: datetime,
    until: datetime,
    rate: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Send old events again, marked as a replay, under their own ids, from the outbox's rows.

    Handlers that have handled an event do not handle it again: read the topic with a new
    subscription. What was pruned is not there any more.
    """
    wiring = wiring_of(ctx)
    if since >= until:
        raise click.UsageError("--from has to be before --to")
    Filter(name=given["name"])
    with database_of(wiring.settings) as database:
        named = chosen(database, wiring.settings, partition)
        asked = OldEvents(partition=named, since=since, until=until, **given)
        count = replaying.count(database, wiring, asked)
        if dry_run:
            print_done({"would_be_sent": count}, f"{count} would be sent.", as_json=as_json)
            return
        if count:
            require_yes(f"Send {count} old events to {shown(asked.to_topic)}?", yes=yes)
        with progress("Sending again", unit="sent") as told:
            done = replaying.replay(
                database,
                wiring,
                asked,
                actor=operator(),
                rate_per_second=rate,
                told=told,
                interrupted=_go_on,
            )
    left = f", {done.left} left: they can be no messages" if done.left else ""
    print_done({"sent": done.done, "left": done.left}, f"{done.done} sent{left}.", as_json=as_json)
    for sentence in done.refused:
        click.echo(shown(sentence), err=True)


def _go_on(since: datetime) -> None:
    click.echo(f"Go on with --from {since.isoformat()}", err=True)
