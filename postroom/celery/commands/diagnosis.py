"""`celery -A tasks outbox doctor` and `setup`: what is wrong, and what is missing, made."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click
from rich.text import Text

from postroom.celery import fleet_settings, queue_broker
from postroom.celery.commands import wiring_of
from postroom.celery.commands.options import json_option
from postroom.celery.commands.printing import console, print_json, print_table
from postroom.celery.commands.services import told
from postroom.celery.commands.terminal import shown
from postroom.findings import Finding, Grade
from postroom.operations import doctor as physician
from postroom.operations.actions import operator

if TYPE_CHECKING:
    from postroom.operations.setup import SetupStep

__all__ = ["doctor", "setup"]

STYLES = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "red"}


@click.command()
@json_option
@click.option("--fix", is_flag=True, help="Make what is missing, as `setup` does, and look then.")
@click.pass_context
def doctor(ctx: click.Context, /, *, as_json: bool, fix: bool) -> None:
    """Look at everything that the outbox rests on: ok, warn or fail, and the remedy.

    Exit code 0: all is well; 1: something is to be looked at; 2: something fails.
    """
    wiring = wiring_of(ctx)
    with console(err=True).status("Looking at the settings") as status:
        if fix:
            with told(wiring.settings):
                steps = physician.fix(wiring, actor=operator())
            _print_steps(steps, as_json=as_json, made_only=True)
        found = physician.examine(
            wiring,
            answers=fleet_settings.ask(ctx.obj.app),
            broker=functools.partial(queue_broker.examine, ctx.obj.app),
            told=lambda what: status.update(f"Looking at {what}"),
        )
    if as_json:
        print_json(map(_as_json, found))
    else:
        _print(found)
    ctx.exit(physician.exit_code(found))


@click.command()
@json_option
@click.pass_context
def setup(ctx: click.Context, /, *, as_json: bool) -> None:
    """Make collections, indexes, topics and subscriptions where they are missing.

    Deduplication is turned on in the topics' namespaces. Done again it changes nothing.
    """
    wiring = wiring_of(ctx)
    with told(wiring.settings):
        steps = physician.fix(wiring, actor=operator())
    _print_steps(steps, as_json=as_json)
    ctx.exit(int(any(step.failed for step in steps)))


def _print(found: list[Finding]) -> None:
    where = console()
    for finding in found:
        line = Text(f"{finding.grade.value:5}", style=STYLES[finding.grade])
        line.append(f"{shown(finding.what)}: {shown(finding.found)}", style="default")
        where.print(line, soft_wrap=False)
        if finding.remedy:
            where.print(Text(f"     -> {shown(finding.remedy)}", style="bold"))
    counts = [sum(each.grade is grade for each in found) for grade in Grade]
    where.print(Text("{} ok, {} to be looked at, {} failing".format(*counts), style="dim"))


def _as_json(finding: Finding) -> dict[str, str]:
    return {
        "what": finding.what,
        "grade": finding.grade.value,
        "found": finding.found,
        "remedy": finding.remedy,
    }


def _print_steps(steps: list[SetupStep], *, as_json: bool, made_only: bool = False) -> None:
    steps = [step for step in steps if step.made or step.failed or not made_only]
    if as_json:
        print_json({"step": step.what, "result": _result(step)} for step in steps)
        return
    if not steps:
        click.echo("Nothing was missing.")
        return
    print_table(("result", "what"), [(_result(step), step.what) for step in steps])


def _result(step: SetupStep) -> str:
    return "failed" if step.failed else ("made" if step.made else "there")
