"""`celery -A tasks outbox forget`: all that MongoDB keeps of one key's events is deleted."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from postroom.celery.commands import wiring_of
from postroom.celery.commands.options import dry_run_option, json_option, require_yes, yes_option
from postroom.celery.commands.printing import print_json
from postroom.celery.commands.services import database_of
from postroom.celery.commands.terminal import shown
from postroom.operations import forgetting
from postroom.operations.actions import operator

if TYPE_CHECKING:
    from postroom.operations.forgetting import Forgotten

__all__ = ["forget"]


@click.command()
@json_option
@click.option(
    "--key", required=True, help="The key; - reads it from standard input, for no list of processes"
)
@dry_run_option
@yes_option
@click.pass_context
def forget(ctx: click.Context, /, *, key: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete the outbox rows of one key's events, and what inbox and quarantine have of them.

    What is scheduled is cancelled. What is still to be sent is left, and the command ends with code
    1 until nothing is. It says what stays on topics and in dead letters.
    """
    key = sys.stdin.readline().rstrip("\r\n") if key == "-" else key
    wiring = wiring_of(ctx)
    with database_of(wiring.settings) as database:
        found = forgetting.look(database, wiring, key)
        if not dry_run:
            count = found.rows + found.scheduled + found.quarantined + found.inbox
            if count:
                require_yes(
                    f"Delete {found.rows} rows, {found.scheduled} scheduled events, "
                    f"{found.quarantined} entries in quarantine and {found.inbox} in the inbox?",
                    yes=yes,
                )
            found = forgetting.forget(database, wiring, key, actor=operator())
    _print(found, done=not dry_run, as_json=as_json)
    if not dry_run and found.left.total():
        ctx.exit(1)


def _print(found: Forgotten, *, done: bool, as_json: bool) -> None:
    if as_json:
        left = {why: count for why, count in found.left.items() if count}
        print_json([{**dataclasses.asdict(found), "left": left, "done": done}])
        return
    verb = "deleted" if done else "would be deleted"
    click.echo(
        f"{found.rows} rows, {found.scheduled} scheduled events, {found.quarantined} entries in "
        f"quarantine and {found.inbox} in the inbox {verb}."
    )
    for why, count in found.left.items():
        if count:
            click.echo(f"{count} events left, {why}. Run this again.")
    for sentence in found.beyond:
        click.echo(f"{shown(sentence)}.")
