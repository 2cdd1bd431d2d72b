"""Every command of an operator, found by walking the groups, so that no new one is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from postroom.celery.commands.dead_letters import dead_letters
from postroom.celery.commands.outbox import outbox
from postroom.celery.commands.show import _moment

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = click.Group("celery", commands=[outbox, dead_letters])
# It serves until it is ended, and prints nothing.
SERVES = "outbox metrics"
DESTROYS = ("discard", "prune", "forget", "replay")


def walk(command: click.Command, words: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that is no group, by its words."""
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            each = command.get_command(ctx, name)
            assert each is not None
            assert each.name == name
            yield from walk(each, f"{words} {name}".strip())
    else:
        yield words, command


COMMANDS = dict(walk(TOP))


@pytest.mark.parametrize("words", COMMANDS)
def test_each_command_and_each_option_says_what_it_does(words: str) -> None:
    """Also in a narrow terminal; a word that it does not know is refused with its usage."""
    for width in ("200", "40"):
        helped = CliRunner().invoke(TOP, [*words.split(), "--help"], env={"COLUMNS": width})
        assert helped.exit_code == 0
        assert "Usage: " in helped.stdout
    options = [each for each in COMMANDS[words].params if isinstance(each, click.Option)]
    assert all(each.help for each in options), words
    wrong = CliRunner().invoke(TOP, [*words.split(), "--no-such-option"])
    assert (wrong.exit_code, "No such option" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("words", COMMANDS)
def test_programs_are_answered_and_what_destroys_asks(words: str) -> None:
    """--json of each that prints; --dry-run and --yes of each that cannot be undone."""
    names = {each.name for each in COMMANDS[words].params}
    assert "as_json" in names or words == SERVES
    if words.rpartition(" ")[2] in DESTROYS:
        assert {"dry_run", "yes"} <= names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-05-01T12:00:01.25+02:00", "2026-05-01 10:00:01"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
        ("yesterday", "yesterday"),
        ("", "-"),
    ],
)
def test_a_time_that_a_stranger_wrote_is_shown_as_one_or_as_it_is(text: str, shown: str) -> None:
    """In UTC where it is one, and never as an error."""
    assert _moment(text) == shown
