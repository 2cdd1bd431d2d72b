"""deploy/systemd: units that systemd understands, hardened, with the product's commands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from postroom import Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
COMMANDS = {
    "relay-1": "worker -Q relay --loglevel=INFO",
    "relay-2": "worker -Q relay --loglevel=INFO",
    "consumer-1": "worker -Q consumer --loglevel=INFO",
    "worker-1": "worker --loglevel=INFO",
    "flower": "flower",
}


def variables(name: str) -> dict[str, str]:
    """Return the variables of an environment file."""
    lines = (FOLDER / f"{name}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def unit() -> str:
    """Return the text of the unit."""
    return (FOLDER / "postroom@.service").read_text()


def test_the_commands_are_the_products() -> None:
    """Each instance runs its literal command, at a port of its own."""
    assert {name: variables(name)["ARGUMENTS"] for name in COMMANDS} == COMMANDS
    ports = [p for name in COMMANDS if (p := variables(name).get("POSTROOM_METRICS_PORT"))]
    assert len(set(ports)) == len(ports) == len(COMMANDS) - 1
    assert "ExecStart=/opt/postroom/venv/bin/celery -A $APPLICATION $ARGUMENTS\n" in unit()


def test_the_variables_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """All exist and have valid values; secrets are files that systemd hands over."""
    known = {f"POSTROOM_{field.upper()}" for field in Settings.model_fields}
    drop_in = (FOLDER / "postroom@flower.service.d" / "password.conf").read_text()
    given = dict(re.findall(r"^Environment=(\w+)=%d/(\S+)$", unit() + drop_in, re.MULTILINE))
    credentials = dict(re.findall(r"^LoadCredential=(\S+):(\S+)$", unit() + drop_in, re.MULTILINE))
    assert set(given.values()) == credentials.keys()
    assert all(path.startswith("/etc/postroom/secrets/") for path in credentials.values())
    assert {name.removesuffix("_FILE") for name in given} <= known
    for variable, value in variables("postroom").items():
        if variable.startswith("POSTROOM_"):
            assert variable in known
            assert not variable.endswith(("_PASSWORD", "_TOKEN", "_URI"))
            monkeypatch.setenv(variable, value)
    assert Settings().delivery == "exactly_once"


def test_a_worker_has_time_to_end() -> None:
    """TERM goes to the worker alone, and longer is waited than a worker takes."""
    text = unit()
    assert "KillMode=mixed\n" in text
    (wait,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert int(wait) > Settings.model_fields["shutdown_seconds"].default + 4
    assert "Restart=always\n" in text
    assert "StartLimitIntervalSec=0\n" in text


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder with the units as they would be, but for a command that is here."""
    text = unit().replace("/opt/postroom/venv/bin/celery", shutil.which("true") or "/bin/true")
    (tmp_path / "postroom@relay-1.service").write_text(text.replace("/opt/postroom", "/tmp"))  # noqa: S108
    shutil.copy(FOLDER / "postroom.target", tmp_path)
    return tmp_path


def analyzed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask systemd-analyze, where there is one."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not here")
    return subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_systemd_understands_them(installed: Path) -> None:
    """`systemd-analyze verify` has nothing to say."""
    done = analyzed(installed, "verify", "./postroom@relay-1.service", "./postroom.target")
    assert (done.returncode, done.stderr) == (0, "")


def test_they_are_hardened(installed: Path) -> None:
    """`systemd-analyze security` finds an exposure below 2 of 10."""
    arguments = ["--offline=true", "--no-pager", "--threshold=20", "./postroom@relay-1.service"]
    done = analyzed(installed, "security", *arguments)
    assert done.returncode == 0, done.stdout
