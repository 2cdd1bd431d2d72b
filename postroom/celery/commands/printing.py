"""Printing: tables for people, that no text can spoil; for programs one JSON object a line."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from postroom.celery.commands.terminal import shown
from postroom.counts import bound
from postroom.store.server_time import in_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from postroom.operations.filters import Excerpt

__all__ = [
    "cell",
    "console",
    "json_line",
    "print_done",
    "print_excerpt",
    "print_json",
    "print_pairs",
    "print_table",
    "time_shown",
]

Item = TypeVar("Item")

# A table of several columns is unreadable in less; then each row is shown as lines of its own.
NARROWEST_TABLE = 70
WIDTH_OF_FILES = 200


def cell(value: object) -> Text:
    """Return the same for a table, whose texts may otherwise hold mark-up."""
    return Text(shown(value), overflow="fold")


def time_shown(at: datetime | None) -> str:
    """Return a time in UTC to the second, or a dash."""
    return f"{in_utc(at):%Y-%m-%d %H:%M:%S}" if at is not None else "-"


def json_line(value: Any) -> str:
    """Return a value as one line of JSON, in characters that every terminal just shows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return json.dumps(value, default=str)


def print_json(values: Iterable[Any]) -> None:
    """Print each value as one line of JSON."""
    for value in values:
        click.echo(json_line(value))


def print_done(value: Mapping[str, int], text: str, *, as_json: bool) -> None:
    """Print what an act has done, or would do: the numbers for programs, else the sentence."""
    if as_json:
        print_json([value])
    else:
        click.echo(shown(text))


def console(*, err: bool = False) -> Console:
    """Return where tables are printed: as wide as the terminal, and wide in files and pipes."""
    found = Console(stderr=err)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = WIDTH_OF_FILES
    return found


def print_table(titles: Sequence[str], rows: Sequence[Sequence[object]], footer: str = "") -> None:
    """Print rows below titles; where there is no room for columns, as lines for each row."""
    where = console()
    if where.width < NARROWEST_TABLE:
        for row in rows:
            print_pairs(zip(titles, row, strict=True))
            click.echo()
    else:
        table = Table(box=None, pad_edge=False)
        for title in titles:
            table.add_column(title, overflow="fold")
        for row in rows:
            table.add_row(*map(cell, row))
        where.print(table)
    if footer:
        where.print(Text(footer), style="dim")


def print_excerpt(
    titles: Sequence[str],
    found: Excerpt[Item],
    row: Callable[[Item], Sequence[object]],
    *,
    noun: str,
) -> None:
    """Print some of those that match, and below them how many of how many these are."""
    some = found.at_least or found.matching != len(found.items)
    of = f"{len(found.items)} of " if some else ""
    footer = f"{of}{bound(more=found.at_least)}{found.matching} {noun}"
    print_table(titles, list(map(row, found.items)), footer)


def print_pairs(pairs: Iterable[tuple[str, object]], *, title: str = "") -> None:
    """Print names with their values, one a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    if title:
        table.title, table.title_justify = cell(title), "left"
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), cell(value))
    console().print(table)
