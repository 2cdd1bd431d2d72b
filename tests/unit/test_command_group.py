"""The commands' group: what they have to say is said, whatever it is printed on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from postroom.celery.commands.dead_letters import dead_letters
from postroom.celery.commands.group import Group
from postroom.celery.commands.outbox import outbox
from tests.site import ROOT

PROGRAM = """
import click

from postroom.celery.commands.group import Group
from postroom.celery.commands.printing import print_table

group = Group("group")


@group.command()
def tell():
    print_table(("reason",), [("gr\\u00f6\\u00dfer \\u2713",)] * int({count}))


group()
"""


def test_all_commands_are_in_one() -> None:
    """Ours are, beside Celery's own."""
    assert isinstance(outbox, Group)
    assert isinstance(dead_letters, Group)


@pytest.mark.parametrize(
    ("into", "count", "code", "out", "err"),
    [
        ("/dev/stdout", 1, 0, "gr\\xf6\\xdfer \\u2713", ""),
        ("/dev/full", 1, 1, "", "Error: The output cannot be written (No space left on device)"),
        ("/dev/full", 9999, 1, "", "Error: The output cannot be written (No space left on device)"),
    ],
)
def test_an_output_that_takes_less_ends_no_command_by_a_traceback(
    into: str, count: int, code: int, out: str, err: str
) -> None:
    """Characters that its encoding lacks stand as escapes; a full disk is a sentence."""
    with open(into, "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(count=count), "tell"],
            env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"},
            cwd=ROOT,
            stdout=subprocess.PIPE if into == "/dev/stdout" else full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == code, done.stderr
    assert out in (done.stdout or "")
    assert err in done.stderr
    assert "Traceback" not in done.stderr
