"""Runs of tests in several processes: what they share, and where one crashes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONFTEST = """
from tests.conftest import *
"""
TESTS = """
import os, pytest

@pytest.fixture(scope="module")
def shared():
    pass

@pytest.mark.parametrize("n", range(5))
def test_together(n, shared):
    assert n != 3 or os._exit(1)

@pytest.mark.parametrize("n", range(12))
def test_alone(n):
    assert n not in (5, 11) or os._exit(1)
"""


SHARING = """
import os, pytest

@pytest.fixture(scope="module")
def service():
    return print("started by", os.getpid())

@pytest.fixture(scope="session")
def _replica_set():
    return print("started by", os.getpid())

@pytest.mark.parametrize("n", range(12))
def test_module(n, service):
    pass

@pytest.mark.parametrize("n", range(12))
def test_rare(n, _replica_set):
    pass
"""


def run(folder: Path, tests: str) -> str:
    """Run some tests in two processes, and return what is said."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_these.py").write_text(tests)
    command = "-m pytest -n 2 --dist loadgroup -q -rA -c /dev/null --rootdir . test_these.py"
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


def test_what_is_shared_is_started_by_one_process(tmp_path: Path) -> None:
    """A rare service, and what the tests of a module share, is started once in the whole run."""
    said = run(tmp_path, SHARING)

    assert "24 passed" in said, said
    processes = [line for line in said.splitlines() if line.startswith("started by")]
    assert len(processes) == 2, said


def test_a_process_that_crashes_costs_the_test_it_was_in_and_no_other(tmp_path: Path) -> None:
    """The run ends, and each other test is run once, those of its group too."""
    said = run(tmp_path, TESTS)
    ended_in = [line for line in said.splitlines() if line.startswith("FAILED")]
    assert "3 failed, 14 passed" in said, said
    assert [line.split("::")[1].split()[0] for line in sorted(ended_in)] == [
        "test_alone[11]",
        "test_alone[5]",
        "test_together[3]",
    ]
