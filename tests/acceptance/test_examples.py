"""The examples: each application's own tests, as its reader would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# Of the versions of frameworks that are installed here, not of the examples.
QUIET = ("-W", "ignore::DeprecationWarning", "-W", "ignore::UserWarning")


@pytest.mark.parametrize("example", sorted(p.name for p in EXAMPLES.iterdir() if p.is_dir()))
def test_an_example_passes_its_own_tests(
    example: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """On the services that the settings name; what needs a framework that is not here skips."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *QUIET, "--basetemp", str(tmp_path / "t"), "."],
        cwd=EXAMPLES / example,
        env={**clean, **environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
