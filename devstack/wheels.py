"""`python -m devstack.wheels`: the wheel, tested in clean environments without the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

__all__ = ["main"]

ROOT = Path(__file__).parents[1]
# What needs the package alone, and neither the sources beside it nor a service.
TESTS = (
    "tests/unit/test_wire.py",
    "tests/unit/test_values.py",
    "tests/unit/test_row_writer.py",
    "tests/unit/test_routing.py",
    "tests/unit/test_handlers.py",
    "tests/unit/test_settings.py",
    "tests/unit/test_secured.py",
    "tests/unit/test_telemetry.py",
    "tests/unit/test_celery_adapter.py",
    "tests/unit/test_celery_redis.py",
    "tests/unit/test_outbox_page.py",
    "tests/unit/test_outbox_page_contract.py",
)
BUILDS_ITSELF = "tests/unit/test_outbox_page_contract.py"
WHERE = "import postroom; print(postroom.__file__)"


@click.command()
@click.argument("pythons", nargs=-1)
@click.option("--constraints", type=click.Path(path_type=Path, exists=True, resolve_path=True))
@click.option("--tests", multiple=True, default=TESTS, help="Which tests.")
def main(pythons: tuple[str, ...], constraints: Path | None, tests: tuple[str, ...]) -> None:
    """Test dist/*.whl, and the wheel built from dist/*.tar.gz, with each of PYTHONS.

    With constraints the dependencies have those versions, otherwise the locked ones.
    """
    for python in pythons or (sys.executable,):
        for archive in _archives(sources=constraints is None):
            with tempfile.TemporaryDirectory(prefix="postroom-wheel-") as folder:
                _try(Path(folder), python, archive, constraints, tests)


def _archives(*, sources: bool) -> list[Path]:
    found = [*ROOT.glob("dist/*.whl"), *(ROOT.glob("dist/*.tar.gz") if sources else ())]
    if not found:
        raise SystemExit("There is nothing in dist: make dist")
    return found


def _try(
    folder: Path, python: str, archive: Path, constraints: Path | None, tests: tuple[str, ...]
) -> None:
    click.echo(f"{archive.name} with {python}, {constraints or 'as locked'}")
    _run(python, "-m", "venv", str(folder / "venv"))
    own = str(folder / "venv" / "bin" / "python")
    pip = (own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*pip, "--require-hashes", "-r", str(ROOT / "requirements" / "dev.txt"))
    if constraints is not None:
        _run(*pip, "-r", str(constraints))
    # Built with hatchling as locked; the sources are nowhere else than in the archive.
    _run(*pip, "--no-deps", "--no-build-isolation", str(archive))
    tree = folder / "tree"
    tree.mkdir()
    for name in ("tests", "tasks", "workers", "devstack", "docs"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("celeryconfig.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tree)
    where = _run(own, "-c", WHERE, cwd=tree).strip()
    if not where.startswith(str(folder / "venv")):
        raise SystemExit(f"The wheel was not tested: postroom is {where}")
    # One test builds a wheel of its own, from the sources.
    options = ("-q", "--deselect", f"{BUILDS_ITSELF}::test_the_wheel_has_the_assets")
    click.echo(_run(own, "-m", "pytest", *options, *tests, cwd=tree).strip().splitlines()[-1])


def _run(*command: str, cwd: Path = ROOT) -> str:
    # What the test run of this process was told is not for the one that it starts.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHON"))}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        click.echo(done.stdout[-4000:] + done.stderr[-4000:])
        raise SystemExit(f"{' '.join(command[:6])} … ended with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
