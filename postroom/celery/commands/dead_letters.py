"""`celery -A tasks dead-letters …`: the events that were given up."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from typing import TYPE_CHECKING, Any

import click
import orjson
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

from postroom import broker, inbox
from postroom.celery.commands import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.inbox import DeadLetter
    from postroom.settings import Settings

__all__ = ["dead_letters"]


def _selection(command: Any) -> Any:
    options = (
        click.option("--topic", help="The topic they come from; POSTROOM_TOPIC unless given."),
        click.option("--subscription", help="POSTROOM_SUBSCRIPTION unless given."),
        click.option("--id", "event_id", help="Only the event with this id."),
        click.option("--handler", help="Only those of this handler."),
        click.option("--name", help="Only events of this name."),
        click.option("--reason", help="Only those whose reason matches this regular expression."),
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
@click.option("--limit", default=100, show_default=True, help="Stop after so many.")
@click.pass_context
def list_(ctx: click.Context, /, *, limit: int, as_json: bool, **selection: Any) -> None:
    """List dead letters, oldest first, without their data."""
    settings = settings_of(ctx)
    topic, subscription = selection.pop("topic"), selection.pop("subscription")
    chosen = _chosen(**selection)
    found: list[DeadLetter] = []
    with _failing(settings):
        for letter in inbox.list_dead(settings, topic=topic, subscription=subscription):
            if chosen(letter):
                found.append(letter)
            if len(found) == limit:
                break
    if as_json:
        for letter in found:
            click.echo(orjson.dumps(dataclasses.asdict(letter)))
        return
    _table(found)


@dead_letters.command()
@_selection
@click.option("--rate", type=float, help="Put back so many a second at most.")
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
        click.echo(orjson.dumps(dataclasses.asdict(done)))
        return
    click.echo(f"{done.put_back} put back, {done.left} left.")


def _chosen(
    *, event_id: str | None, handler: str | None, name: str | None, reason: str | None
) -> Callable[[DeadLetter], bool]:
    pattern = re.compile(reason or "")

    def chosen(letter: DeadLetter) -> bool:
        return (
            event_id in (None, letter.id)
            and handler in (None, letter.handler)
            and name in (None, letter.name)
            and pattern.search(letter.reason) is not None
        )

    return chosen


@contextlib.contextmanager
def _failing(settings: Settings) -> Iterator[None]:
    """Turn the client's errors into a sentence."""
    import pulsar

    where = broker.masked(settings.pulsar_url)
    try:
        yield
    except pulsar.ConsumerBusy as error:
        raise click.ClickException(
            "Somebody else is listing or redriving these dead letters; try again later"
        ) from error
    except pulsar.PulsarException as error:
        raise click.ClickException(
            f"Pulsar does not answer at {where} ({type(error).__name__}); what was put back before "
            "that stays put back"
        ) from error


def _table(letters: list[DeadLetter]) -> None:
    table = Table(box=None)
    for title in ("event", "name", "handler", "attempts", "last failure", "reason"):
        table.add_column(title, overflow="fold")
    for letter in letters:
        last = letter.last_failure.partition(".")[0]
        handler, name = letter.handler or "-", letter.name or "-"
        table.add_row(letter.id, name, handler, str(letter.attempts), last, letter.reason)
    Console().print(table)
    Console().print(f"{len(letters)} dead letters", style="dim")
