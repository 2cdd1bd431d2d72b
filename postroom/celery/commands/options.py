"""Options that several commands share: filters, times, questions, progress."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from postroom import errors
from postroom.celery.commands.printing import console
from postroom.celery.commands.terminal import shown
from postroom.events import id_text
from postroom.operations.filters import Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.operations.done import Done
    from postroom.operations.filters import Excerpt

__all__ = [
    "AHEAD",
    "WHEN",
    "dry_run_option",
    "filter_of",
    "filter_options",
    "json_option",
    "limit_option",
    "named_partition",
    "partition_option",
    "progress",
    "rate_option",
    "require_found",
    "require_yes",
    "skip_option",
    "yes_option",
]

MOST_RATE = 100_000.0
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
AGO = re.compile(r"(\d{1,6})([smhd])")


class _When(click.ParamType):  # type: ignore[type-arg]
    """A time: RFC 3339 (UTC unless it says otherwise), or how long ago, as 90m, 12h, 7d."""

    name = "time"
    span = "90m, 12h, 7d ago"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        """Read it, or fail with a sentence."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        if found := AGO.fullmatch(text):
            with contextlib.suppress(OverflowError):
                return datetime.now(UTC) - timedelta(**{UNITS[found[2]]: int(found[1])})
        try:
            at = datetime.fromisoformat(text)
            return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time: write 2026-05-01T12:00 (UTC), or {self.span}",
                param,
                ctx,
            )


class _Ahead(_When):
    """A time: RFC 3339 (UTC unless it says otherwise), or in how long, as 90m, 12h, 7d.

    That is for MongoDB to add to its own time.
    """

    span = "90m, 12h, 7d from now"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime | timedelta:  # type: ignore[override]
        """Read it, or fail with a sentence."""
        if isinstance(value, (datetime, timedelta)):
            return value
        if found := AGO.fullmatch(str(value).strip()):
            return timedelta(**{UNITS[found[2]]: int(found[1])})
        return super().convert(value, param, ctx)


WHEN = _When()
AHEAD = _Ahead()
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
rate_option = click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True, max=MOST_RATE),
    callback=lambda _ctx, _option, value: _number(value),
    help="So many a second at most.",
)
yes_option = click.option("--yes", is_flag=True, help="Ask nothing.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say how many, and change nothing.")
partition_option = click.option(
    "--partition",
    callback=lambda _ctx, _option, value: named_partition(value),
    help="The outbox partition; the only one there is unless given.",
)
limit_option = click.option(
    "--limit",
    type=click.IntRange(min=1, max=1_000_000),
    default=100,
    show_default=True,
    help="Stop after so many.",
)
skip_option = click.option(
    "--skip", type=click.IntRange(min=0), default=0, help="Leave out so many first."
)


def named_partition(given: str | None) -> str | None:
    """Return the outbox partition that is named, if one is.

    Raises:
        BadParameter: no outbox partition can be called so.

    """
    if given is None:
        return None
    if not given or "\0" in given or any(0xD800 <= ord(c) <= 0xDFFF for c in given):
        raise click.BadParameter(f"{given!r} is no outbox partition", param_hint="--partition")
    return given


def _number(value: float | None) -> float | None:
    if value is not None and value != value:  # noqa: PLR0124 - such is NaN, which no bound excludes
        raise click.BadParameter("nan is no number", param_hint="--rate")
    return value


def _pattern(_ctx: Any, _option: Any, value: str | None) -> re.Pattern[str] | None:
    try:
        return None if value is None else re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise click.BadParameter(f"{value!r} is no regular expression: {error}") from None


def filter_options(command: Any) -> Any:
    """Add the options of the one filter for quarantined rows and dead letters."""
    options = (
        click.option("--id", "ids", multiple=True, help="Only the event with this id; may repeat."),
        click.option("--name", help="Only events of this name."),
        click.option("--handler", help="Only those of this handler."),
        click.option(
            "--reason",
            callback=_pattern,
            help="Only those whose reason matches this regular expression.",
        ),
        click.option("--kind", help="Only those whose reason begins so, as ValueError."),
        click.option("--key", help="Only those with this key."),
        click.option(
            "--from", "since", type=WHEN, help="Only those set aside then or later: a time, or 2h."
        ),
        click.option("--to", "until", type=WHEN, help="Only those set aside before."),
        click.option("--topic", help="The topic they come from, or wait for."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def filter_of(given: dict[str, Any]) -> Filter:
    """Take the filter's options out of all that were given.

    Raises:
        UsageError: one of them is what nothing stored could have.

    """
    names = ("ids", "name", "handler", "reason", "kind", "key", "since", "until", "topic")
    try:
        return Filter(**{name: given.pop(name) for name in names})
    except errors.ConfigurationError as error:
        raise click.UsageError(str(error)) from None


def require_found(where: Filter, page: Callable[[Filter], Excerpt[Any]], *, absent: str) -> None:
    """Refuse ids that are not there: one that is mistyped would be passed by without a word.

    Raises:
        ClickException: `page` does not find one of them; the message begins with `absent`.

    """
    if not where.ids:
        return
    known = {id_text(each.row_id) for each in page(Filter(ids=where.ids)).items}
    if unknown := [row_id for row_id in where.ids if row_id not in known]:
        raise click.ClickException(f"{absent}: {shown(', '.join(unknown))}; nothing was done")


def require_yes(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; nobody there to answer means no.

    Raises:
        Abort: the answer is no; nothing was done.

    """
    if not yes:
        click.confirm(f"{question} (--yes asks nothing)", abort=True, err=True)


@contextlib.contextmanager
def progress(what: str, *, unit: str) -> Iterator[Callable[[Done], None]]:
    """Show how far a long act is, on the terminal alone; an interruption says how far it came."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
    )
    so_far: list[Done] = []
    where = console(err=True)
    # Into a file it would write an empty line.
    quiet = not where.is_terminal
    with Progress(*columns, console=where, transient=True, disable=quiet) as bar:
        task = bar.add_task(what, total=None)

        def told(done: Done) -> None:
            so_far[:] = [done]
            bar.update(task, total=done.asked, completed=done.done + done.left)

        try:
            yield told
        except KeyboardInterrupt:
            bar.stop()
            count = so_far[0].done if so_far else 0
            click.echo(f"Interrupted: {count} {unit}; the others are as they were.", err=True)
            raise
