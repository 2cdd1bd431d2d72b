"""Runs of tests of which a process crashes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONFTEST = """
from tests.conftest import pytest_xdist_make_scheduler
"""
TESTS = """
import os, pytest

@pytest.mark.parametrize("n", range(5))
@pytest.mark.xdist_group("together")
def test_together(n):
    assert n != 3 or os._exit(1)

@pytest.mark.parametrize("n", range(12))
def test_alone(n):
    assert n not in (5, 11) or os._exit(1)
"""


def test_a_process_that_crashes_costs_the_test_it_was_in_and_no_other(tmp_path: Path) -> None:
    """The run ends, and each other test is run once, those of its group too."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_crashing.py").write_text(TESTS)
    command = "-m pytest -n 2 --dist loadgroup -q -rA -c /dev/null --rootdir . test_crashing.py"
    run = subprocess.run(
        [sys.executable, *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    ended_in = [line for line in run.stdout.splitlines() if line.startswith("FAILED")]
    assert "3 failed, 14 passed" in run.stdout, run.stdout + run.stderr
    assert [line.split("::")[1].split()[0] for line in sorted(ended_in)] == [
        "test_alone[11]",
        "test_alone[5]",
        "test_together[3]",
    ]
