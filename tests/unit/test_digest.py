"""What is said last of a run that failed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.digest import CHARACTERS, digest

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
import pytest

def test_good():
    pass

class TestOf:
    @pytest.mark.parametrize("n", [1])
    def test_bad(self, n):
        assert n == 2, "the reason"

@pytest.fixture
def broken():
    raise OSError("no room")

def test_without(broken):
    pass
"""
CRASH = """
import ctypes, faulthandler, threading, time

def waits():
    time.sleep(60)

def goes_wrong():
    ctypes.string_at(0)

faulthandler.enable()
threading.Thread(target=waits, daemon=True).start()
goes_wrong()
"""


def said(folder: Path, *words: str) -> str:
    """Return all that a program says."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_each_test_that_failed_is_told_with_its_reason(tmp_path: Path) -> None:
    """Those of the last run, in what an end of a log holds."""
    (tmp_path / "test_these.py").write_text(TESTS)
    output = said(tmp_path, "-m", "pytest", "-ra", "-c", "/dev/null", "--rootdir=.")
    earlier = "=== short test summary info ===\nFAILED test_these.py::test_that_passed_then\n"

    told = digest(earlier + output + "1 passed\n" * 2000)

    assert len(told) <= CHARACTERS
    assert "FAILED test_these.py::TestOf::test_bad[1]" in told
    assert "AssertionError: the reason" in told
    assert "ERROR test_these.py::test_without" in told
    assert "OSError: no room" in told
    assert "test_good" not in told
    assert "test_that_passed_then" not in told


def test_a_crash_is_told_with_the_stack_it_was_in(tmp_path: Path) -> None:
    """However much other processes say behind it; other threads are left out."""
    output = said(tmp_path, "-c", CRASH)

    told = digest(f"....{output}\n" + "......... [ 56%]\n" * 5000)

    assert "Fatal Python error: Segmentation fault" in told
    assert "in goes_wrong" in told
    assert "in waits" not in told


def test_where_nothing_is_recognised_the_end_is_told() -> None:
    """As it is where make itself fails."""
    assert "make: *** No rule" in digest("a\n" * 5000 + "make: *** No rule to make target\n")
