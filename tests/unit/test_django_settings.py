"""Django's databases and postroom's settings: one MongoDB, or a warning that it is not."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.pages import ROOT

CODE = """
import json, sys
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["postroom.contrib.django"], SILENCED_SYSTEM_CHECKS=[])
django.setup()
from django.core.checks import run_checks
from postroom.contrib.django import settings as found
said = []
for databases, given in json.load(sys.stdin):
    settings.DATABASES, settings.POSTROOM = databases, given
    warned = [each.id for each in run_checks(tags=["postroom"])]
    said.append([found().mongodb_database, warned])
print(json.dumps(said))
"""
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "x"}


def backend(name: str, host: str = "") -> dict[str, str]:
    """Return a database of django-mongodb-backend's."""
    return {"ENGINE": "django_mongodb_backend", "NAME": name, "HOST": host}


CASES: list[tuple[dict[str, Any], dict[str, str], str, list[str]]] = [
    ({"default": SQLITE}, {}, "aid-kit", []),
    ({"default": backend("shop")}, {}, "shop", []),
    ({"default": SQLITE, "mongo": backend("shop")}, {}, "shop", []),
    ({"default": backend("shop")}, {"MONGODB_DATABASE": "shop"}, "shop", []),
    ({"default": backend("shop")}, {"MONGODB_DATABASE": "other"}, "other", ["postroom.W001"]),
    ({"a": backend("shop"), "b": backend("other")}, {}, "aid-kit", ["postroom.W001"]),
    ({"a": backend("shop"), "b": backend("b")}, {"MONGODB_DATABASE": "b"}, "b", []),
    ({"default": backend("shop", "db-1")}, {}, "shop", ["postroom.W002"]),
    ({"default": backend("shop", "mongodb+srv://db/")}, {}, "shop", []),
    (
        {"default": backend("shop", "mongodb://u:p@db-1,db-2/?replicaSet=r")},
        {"MONGODB_URI": "mongodb://db-2,db-3/?replicaSet=r"},
        "shop",
        [],
    ),
    (
        {"default": backend("shop", "mongodb://localhost:4711")},
        {"MONGODB_URI": "mongodb://127.0.0.1:4711"},
        "shop",
        [],
    ),
]


def test_relays_look_where_publish_writes() -> None:
    """By default; what is set otherwise is warned of, and nothing is opened."""
    pytest.importorskip("django")
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input=json.dumps([case[:2] for case in CASES]),
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for case, said in zip(CASES, json.loads(done.stdout), strict=True):
        assert said == [*case[2:]], case
