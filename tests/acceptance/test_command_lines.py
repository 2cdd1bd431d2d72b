"""Whole command lines of an operator, with anything in them: a sentence, a code, and no traceback.

What stands on the screen afterwards was put there by us: no escape code, no other control character
of what was typed or of what is stored gets through.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from postroom.celery.commands.dead_letters import dead_letters
from postroom.celery.commands.outbox import outbox
from tests.acceptance.test_operators_commands import letters, set_aside
from tests.commands import run
from tests.unit.test_commands import SERVES, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.site import Site

TOP = click.Group("celery", commands=[outbox, dead_letters])
# `doctor` and `setup` ask every service for seconds; what follows ends by Ctrl-C alone.
SLOW = {"outbox doctor", "outbox setup", SERVES}
COMMANDS = {words: found for words, found in walk(TOP) if words not in SLOW}
ENDLESS = {"follow", "watch"}
CODES = (0, 1, 2)

# What moves cursors, turns writing round, ends lines, is no character or of another encoding.
EVIL = "\x1b[2J\x1b]0;t\x07\r\n\x9b31m\u202e\u2028\ufeff[red]\udcff"
NUMBERS = ("0", "-1", "1", "007", "1e3", "9" * 30, "0x10", "\u0664")
TIMES = ("1h", "2h30m", "2026-05-01T12:00", "0001-01-01T00:00+23:59", "9" * 40 + "d", "2099-01-01")
OTHERS = (EVIL, "", " ", "-", "--", "(", "(?P<", "[", "{}", "default", "e0", "a/b/c", "a" * 5000)
WORDS = st.sampled_from([*NUMBERS, *TIMES, *OTHERS]) | st.text(
    st.characters(blacklist_characters="\0"), max_size=12
)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Draw a command, some of its options with anything behind them, and at times more words."""
    words = draw(st.sampled_from(sorted(COMMANDS)))
    line = words.split()
    known = [each for each in COMMANDS[words].params if each.name not in ENDLESS]
    chosen = st.lists(st.sampled_from(known), max_size=4) if known else st.just([])
    for each in draw(chosen):
        line += [draw(st.sampled_from(each.opts))] if isinstance(each, click.Option) else []
        is_flag = isinstance(each, click.Option) and each.is_flag
        line += [] if is_flag else [draw(WORDS)]
    if draw(st.integers(0, 4)) == 0:
        line.insert(draw(st.integers(0, len(line))), draw(WORDS))
    return line


def require_harmless(site: Site, line: Sequence[str]) -> int:
    """Run a command line; return its code."""
    done = run(site, *line, code=None)
    assert done.exit_code in CODES, line
    for text in (done.stdout, done.stderr):
        assert "Traceback" not in text, line
        strange = {c for c in text if not c.isprintable() and c != "\n"}
        assert not strange, (line, strange)
    return done.exit_code


# Shrinking would run a slow command a hundred times.
@settings(
    max_examples=20,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(line=command_lines())
@example(line=["outbox", "show", EVIL])
@example(line=["outbox", EVIL])
@example(line=["outbox", "status", f"--{EVIL}"])
@example(line=["outbox", "quarantine", "list", "--reason", EVIL])
@example(line=["outbox", "quarantine", "redrive", "--id", EVIL])
@example(line=["outbox", "forget", "--key", EVIL, "--dry-run"])
@example(line=["outbox", "replay", "--from", "1h", "--to-topic", EVIL, "--yes"])
@example(line=["outbox", "pause", "--partition", EVIL])
@example(line=["dead-letters", "list", "--subscription", EVIL])
@example(line=["dead-letters", "list", "--topic", EVIL])
@example(line=["dead-letters", "redrive", "--rate", "nan"])
def test_whatever_is_typed_ends_in_a_sentence(lite_site: Site, line: list[str]) -> None:
    """Exit code 0, 1 or 2, no traceback, and nothing on the screen that moves a cursor."""
    require_harmless(lite_site, line)


def test_what_is_stored_moves_no_cursor(lite_site: Site) -> None:
    """Rows and dead letters of a stranger, whose names and reasons are full of escape codes."""
    set_aside(lite_site, EVIL.replace("\udcff", ""))
    letters(lite_site, 1)
    for line in ("outbox quarantine list", "outbox tail", "dead-letters list", "outbox actions"):
        for more in ([], ["--json"]):
            assert require_harmless(lite_site, [*line.split(), *more]) == 0


def test_the_real_command_does_the_same(lite_site: Site) -> None:
    """Also bytes that are no UTF-8, which Python takes for halves of surrogate pairs."""
    program = Path(sys.executable).parent / "celery"
    for line in (["outbox", "show", EVIL], ["outbox", "tail", "\x9b31m"], ["dead-letters", "\x1b"]):
        done = subprocess.run(
            [program, "-A", "tasks", *line],
            env={**os.environ, **lite_site.environment},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode in CODES
        said = (done.stdout + done.stderr).decode()
        assert "Traceback" not in said
        assert all(c.isprintable() or c == "\n" for c in said), repr(said)
