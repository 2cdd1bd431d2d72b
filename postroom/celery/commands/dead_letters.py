"""`celery -A tasks dead-letters …`: the events that were given up."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

from postroom import broker, errors, inbox, refusals
from postroom.access import pulsar as pulsar_access
from postroom.celery.commands import cell, json_line, settings_of, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.inbox import DeadLetter
    from postroom.settings import Settings

__all__ = ["dead_letters"]

MOST_OTHERS = 10


def _pattern(_ctx: Any, _option: Any, value: str | None) -> re.Pattern[str] | None:
    try:
        return None if value is None else re.compile(value)
    except re.error as error:
        raise click.BadParameter(f"{value!r} is no regular expression: {error}") from None


def _selection(command: Any) -> Any:
    options = (
        click.option("--topic", help="The topic they come from; POSTROOM_TOPIC unless given."),
        click.option("--subscription", help="POSTROOM_SUBSCRIPTION unless given."),
        click.option("--id", "event_id", help="Only the event with this id."),
        click.option("--handler", help="Only those of this handler."),
        click.option("--name", help="Only events of this name."),
        click.option(
            "--reason",
            callback=_pattern,
            help="Only those whose reason matches this regular expression.",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group("dead-letters")
def dead_letters() -> None:
    """List the events that were given up, and put them back."""


@dead_letters.command("list")
@_selection
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Stop after so many.",
)
@click.pass_context
def list_(ctx: click.Context, /, *, limit: int, as_json: bool, **selection: Any) -> None:
    """List dead letters, oldest first, without their data."""
    settings = settings_of(ctx)
    topic, subscription = selection.pop("topic"), selection.pop("subscription")
    chosen = _chosen(**selection)
    found: list[DeadLetter] = []
    elsewhere: Counter[tuple[str, str]] = Counter()
    with _failing(settings):
        letters = inbox.list_dead(
            settings,
            topic=topic,
            subscription=subscription,
            others=lambda letter: elsewhere.update([(letter.topic, letter.subscription)]),
        )
        found = list(itertools.islice(filter(chosen, letters), limit))
    if as_json:
        for letter in found:
            click.echo(json_line(dataclasses.asdict(letter)))
        return
    _table(found)
    for (their_topic, their_subscription), count in elsewhere.most_common(MOST_OTHERS):
        click.echo(
            f"Beside them {count} of --topic {shown(their_topic)} "
            f"--subscription {shown(their_subscription)}"
        )


@dead_letters.command()
@_selection
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Put back so many a second at most.",
)
@click.pass_context
def redrive(ctx: click.Context, /, *, rate: float | None, as_json: bool, **selection: Any) -> None:
    """Put dead letters back for the handler that failed."""
    settings = settings_of(ctx)
    topic, subscription = selection.pop("topic"), selection.pop("subscription")
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with (
        _failing(settings),
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("Reading dead letters")
        chosen = _chosen(**selection)
        seen = 0

        def where(letter: DeadLetter) -> bool:
            nonlocal seen
            seen += 1
            progress.update(task, description=f"{seen} dead letters looked at")
            return chosen(letter)

        done = inbox.redrive(
            settings, topic=topic, subscription=subscription, where=where, rate_per_second=rate
        )
    if as_json:
        click.echo(json_line(dataclasses.asdict(done)))
        return
    click.echo(f"{done.put_back} put back, {done.left} left.")
    for sentence in done.refused[:MOST_OTHERS]:
        click.echo(shown(sentence), err=True)
    if done.refused:
        ctx.exit(1)


def _chosen(
    *,
    event_id: str | None,
    handler: str | None,
    name: str | None,
    reason: re.Pattern[str] | None,
) -> Callable[[DeadLetter], bool]:
    def chosen(letter: DeadLetter) -> bool:
        return (
            event_id in (None, letter.id)
            and handler in (None, letter.handler)
            and name in (None, letter.name)
            and (reason is None or reason.search(letter.reason) is not None)
        )

    return chosen


@contextlib.contextmanager
def _failing(settings: Settings) -> Iterator[None]:
    """Turn the client's errors into a sentence."""
    import pulsar

    try:
        yield
    except pulsar.ConsumerBusy as error:
        raise click.ClickException(
            "Somebody else is listing or redriving these dead letters; try again later"
        ) from error
    except errors.ConfigurationError as error:
        raise click.ClickException(shown(error)) from error
    except (errors.PostroomError, pulsar.PulsarException) as error:
        why = shown(refusals.why(error, pulsar_access.of(settings)))
        raise click.ClickException(
            f"Pulsar at {broker.masked(settings.pulsar_url)} failed ({why}); what was put back "
            "before that stays put back"
        ) from error


def _table(letters: list[DeadLetter]) -> None:
    table = Table(box=None)
    for title in ("event", "name", "handler", "attempts", "last failure", "reason"):
        table.add_column(title, overflow="fold")
    for letter in letters:
        last = letter.last_failure.partition(".")[0]
        shown_ = (letter.id, letter.name or "-", letter.handler or "-", letter.attempts, last)
        table.add_row(*map(cell, (*shown_, letter.reason)))
    Console().print(table)
    Console().print(f"{len(letters)} dead letters", style="dim")
