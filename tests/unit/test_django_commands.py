"""manage.py has the whole command line, and call_command() takes the same words."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.pages import ROOT
from tests.unit.test_commands import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

APP = """
from celery import Celery
from postroom.celery import install
app = Celery("shop", set_as_current=False)
install(app)
"""
CODE = """
import contextlib, io, json, sys
import django
from django.conf import settings
databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
settings.configure(
    DATABASES=databases, INSTALLED_APPS=["postroom.contrib.django"], POSTROOM={"CELERY_APP": "shop"}
)
django.setup()
from django.core.management import ManagementUtility, call_command
for line in sys.stdin:
    words = line.split()
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        ManagementUtility(["manage.py", *words, "--help"]).execute()
    assert said.getvalue().startswith("Usage: manage.py " + " ".join(words)), said.getvalue()
said = io.StringIO()
with contextlib.redirect_stdout(said):
    call_command("outbox", "schema", "--json")
assert json.loads(said.getvalue())["form"] == 1
"""


def test_manage_py_has_every_command(tmp_path: Path) -> None:
    """With its help under its own name; what is scheduled and what is imported too."""
    pytest.importorskip("django")
    shown = [name for name, command in COMMANDS.items() if not command.hidden]
    assert {"outbox scheduled cancel", "outbox import"} <= set(shown)
    (tmp_path / "shop.py").write_text(APP)
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input="\n".join(name.replace("dead-letters", "dead_letters") for name in shown),
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
