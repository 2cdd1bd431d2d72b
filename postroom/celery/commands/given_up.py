"""What is done with dead letters from the command line: listed, put back, discarded."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from postroom import inbox
from postroom.celery.commands import settings_of
from postroom.celery.commands.options import (
    dry_run_option,
    filter_of,
    filter_options,
    json_option,
    limit_option,
    progress,
    rate_option,
    require_yes,
    skip_option,
    yes_option,
)
from postroom.celery.commands.printing import print_done, print_excerpt, print_json
from postroom.celery.commands.services import database_of, told
from postroom.celery.commands.terminal import shown
from postroom.counts import bound
from postroom.operations import dead_letters as letters
from postroom.operations.actions import operator

if TYPE_CHECKING:
    from postroom.inbox import DeadLetter
    from postroom.operations.filters import Filter
    from postroom.settings import Settings

__all__ = ["discard", "list_", "redrive"]

TITLES = ("event", "name", "handler", "attempts", "last failure", "reason")
MOST_OTHERS = 10
COUNT_SECONDS = 60.0
subscription_option = click.option("--subscription", help="POSTROOM_SUBSCRIPTION unless given.")
everything_option = click.option(
    "--all", "everything", is_flag=True, help="All dead letters of the subscription."
)


@click.command("list")
@json_option
@subscription_option
@limit_option
@skip_option
@filter_options
@click.pass_context
def list_(
    ctx: click.Context,
    /,
    *,
    subscription: str | None,
    limit: int,
    skip: int,
    as_json: bool,
    **given: Any,
) -> None:
    """List dead letters, oldest first, without their data."""
    settings, where = settings_of(ctx), filter_of(given)
    elsewhere: Counter[tuple[str, str]] = Counter()
    with told(settings):
        if as_json:
            print_json(_some(settings, where, subscription, skip, limit))
            return
        page = letters.page(
            settings,
            where,
            subscription=subscription,
            skip=skip,
            limit=limit,
            others=lambda letter: elsewhere.update([(letter.topic, letter.subscription)]),
        )
    print_excerpt(TITLES, page, _row, noun="dead letters")
    for (their_topic, their_subscription), count in elsewhere.most_common(MOST_OTHERS):
        click.echo(
            f"Beside them {count} of --topic {shown(their_topic)} "
            f"--subscription {shown(their_subscription)}"
        )


def _some(
    settings: Settings, where: Filter, subscription: str | None, skip: int, limit: int
) -> list[DeadLetter]:
    found = inbox.list_dead(settings, topic=where.topic, subscription=subscription)
    with contextlib.closing(found):
        return list(itertools.islice(filter(letters.fitting(where), found), skip, skip + limit))


def _row(letter: DeadLetter) -> tuple[object, ...]:
    last = letter.last_failure.partition(".")[0]
    names = (letter.id, letter.name or "-", letter.handler or "-")
    return (*names, letter.attempts, last, letter.reason)


@click.command()
@json_option
@subscription_option
@rate_option
@dry_run_option
@filter_options
@click.pass_context
def redrive(
    ctx: click.Context,
    /,
    *,
    subscription: str | None,
    rate: float | None,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Put dead letters back for the handler that failed."""
    settings, where = settings_of(ctx), filter_of(given)
    if dry_run:
        _print_count(settings, where, subscription, "put back", as_json=as_json)
        return
    with (
        database_of(settings, done="what was put back before that stays put back") as database,
        progress("Reading dead letters", unit="put back") as hear,
    ):
        done = letters.redrive(
            settings,
            database,
            where,
            actor=operator(),
            subscription=subscription,
            rate_per_second=rate,
            told=hear,
        )
    if as_json:
        value = {"put_back": done.done, "left": done.left, "refused": list(done.refused)}
        print_json([value])
        return
    click.echo(f"{done.done} put back, {done.left} left.")
    for sentence in done.refused[:MOST_OTHERS]:
        click.echo(shown(sentence), err=True)
    if done.refused:
        ctx.exit(1)


@click.command()
@json_option
@subscription_option
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
    subscription: str | None,
    everything: bool,
    rate: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Take dead letters off their topic for good: nothing handles them any more."""
    settings, topic = settings_of(ctx), given["topic"]
    where = filter_of(given)
    if dataclasses.replace(where, topic=None).is_all is not everything:
        raise click.UsageError("Say which letters: --id, another filter, or --all alone")
    if dry_run:
        _print_count(settings, where, subscription, "discarded", as_json=as_json)
        return
    with told(settings):
        page = letters.count(settings, where, subscription=subscription, seconds=COUNT_SECONDS)
    if page.matching:
        count = f"{bound(more=page.at_least)}{page.matching}"
        of = f"{shown(subscription or settings.subscription)} on {shown(topic or settings.topic)}"
        require_yes(f"Discard {count} dead letters of {of}, unhandled?", yes=yes)
    with (
        database_of(settings, done="what was discarded before that stays discarded") as database,
        progress("Discarding", unit="discarded") as hear,
    ):
        done = letters.discard(
            settings,
            database,
            where,
            actor=operator(),
            subscription=subscription,
            rate_per_second=rate,
            told=hear,
        )
    print_done({"discarded": done.done}, f"{done.done} discarded.", as_json=as_json)


def _print_count(
    settings: Settings, where: Filter, subscription: str | None, done: str, *, as_json: bool
) -> None:
    with told(settings):
        page = letters.count(settings, where, subscription=subscription, seconds=COUNT_SECONDS)
    value = {f"would_be_{done.replace(' ', '_')}": page.matching}
    at_least = "At least " if page.at_least else ""
    print_done(value, f"{at_least}{page.matching} would be {done}.", as_json=as_json)
