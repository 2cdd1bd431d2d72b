"""Every command where nothing is there yet, and where no service is: for people and for programs.

What each does where there is something, its help and its own errors: test_operators_commands.py,
tests/unit/test_commands.py. A command that is in no row here fails the first test.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from postroom.store import clients
from tests.acceptance.test_operators_commands import AWAY, values
from tests.commands import run
from tests.unit.test_commands import COMMANDS, SERVES

if TYPE_CHECKING:
    import pytest

    from tests.site import Site


class Row(NamedTuple):
    """One command: its words, what it says of nothing, its code, and its least lines of JSON."""

    words: str
    says: str
    code: int = 0
    lines: int = 1


NOBODY = "6a6a6a6a6a6a6a6a6a6a6a6a"
ROWS = (
    Row("outbox status", "No relay has ever been started", lines=0),
    Row("outbox partitions", "outbox partitions, generation"),
    Row("outbox actions", "0 actions", lines=0),
    Row(f"outbox show {NOBODY}", f"Not found: {NOBODY}. Looked in:", code=1),
    Row("outbox tail", "", lines=0),
    Row("outbox pause", "There are: none", code=1, lines=0),
    Row("outbox resume", "There are: none", code=1, lines=0),
    Row("outbox prune --yes", "0 pruned."),
    Row("outbox import legacy --yes", "There is no collection 'legacy'", code=1, lines=0),
    Row("outbox forget --key nobody --yes", "0 rows, 0 scheduled events, 0 entries in quarantine"),
    Row("outbox replay --from 1h --to 1m --to-topic public/default/none --yes", "0 sent."),
    Row("outbox scheduled list", "0 scheduled events", lines=0),
    Row(f"outbox scheduled show {NOBODY}", f"Not scheduled: {NOBODY}", code=1, lines=0),
    Row("outbox scheduled cancel --all --yes", "0 cancelled."),
    Row("outbox scheduled reschedule --all --at 1h", "0 rescheduled."),
    Row("outbox scheduled fire --all", "0 fired."),
    Row("outbox quarantine list", "0 quarantined rows", lines=0),
    Row("outbox quarantine redrive --all", "0 put back."),
    Row("outbox quarantine discard --all --yes", "0 discarded."),
    Row("dead-letters list", "0 dead letters", lines=0),
    Row("dead-letters redrive", "0 put back"),
    Row("dead-letters discard --all --yes", "0 discarded."),
    Row("outbox metrics", "postroom_database_readable 1.0"),
    Row("outbox schema", '"events"'),
    Row("outbox setup", "made"),
    Row("outbox doctor", "to be looked at", code=1),
)

# Asks the application's classes alone.
OFFLINE = {"outbox schema"}
# Pulsar's client waits for ten seconds; test_a_service_that_is_away_is_a_sentence tries these.
SLOW = {"dead-letters list", "dead-letters discard --all --yes", "outbox doctor"}


def named(words: str) -> str:
    """Return the command of a row."""
    return next(name for name in COMMANDS if f"{words} ".startswith(f"{name} "))


def test_no_command_is_left_out() -> None:
    """By walking the groups."""
    shown = {name for name, command in COMMANDS.items() if not command.hidden}
    assert {named(row.words) for row in ROWS} == shown


def test_where_nothing_is_there_each_says_so(lite_site: Site) -> None:
    """In words, and by --json as lines of JSON and nothing else; the same exit code."""
    for row in ROWS:
        words = row.words.split()
        done = run(lite_site, *words, code=row.code)
        assert row.says in done.stdout + done.stderr, row
        assert "Traceback" not in done.stderr
        if named(row.words) != SERVES:
            told = run(lite_site, *words, "--json", code=row.code)
            found = values(told)
            assert len(found) >= row.lines, row
            assert row.lines or not found, row


def test_where_no_service_is_each_names_one(
    lite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence on stderr, code 1, and nothing on stdout that a program could take for more."""
    monkeypatch.setitem(clients._PATIENCE, "serverSelectionTimeoutMS", 300)
    for row in ROWS:
        if row.words in SLOW | OFFLINE:
            continue
        asked = [*row.words.split(), *([] if named(row.words) == SERVES else ["--json"])]
        done = run(lite_site, *asked, code=1, **AWAY)
        assert done.stdout == "", row
        assert re.match(r"Error: MongoDB at 127\.0\.0\.1:1 failed", done.stderr), row
        assert len(done.stderr.splitlines()) == 1, row
