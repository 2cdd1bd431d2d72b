"""The tutorial, followed word by word: an empty folder, its file, its commands."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pages import DOCS, blocks
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site, Worker

TUTORIAL = DOCS / "tutorial.md"


def commands() -> list[str]:
    """Return the literal commands of the application that the tutorial has."""
    plain = (block.text for block in blocks(TUTORIAL) if not block.kind)
    lines = (line for text in plain for line in text.splitlines())
    return [line for line in lines if line.startswith("celery -A shop ")]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that holds the tutorial's file and nothing else, and be in it."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (source,) = (block.text for block in blocks(TUTORIAL) if block.kind == "python")
    (folder / "shop.py").write_text(source)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def workers(site: Site, shop: Path) -> list[Worker]:
    """Start the tutorial's workers."""
    words = [each for each in commands() if " worker" in each]
    return [site.start(each, shop, PYTHONPATH=str(shop)) for each in words]


def told(words: str, site: Site) -> str:
    """Run a command of the tutorial to its end, and return what it prints."""
    program, *rest = shlex.split(words)
    done = subprocess.run(
        [str(Path(sys.executable).parent / program), *rest],
        env={**os.environ, **site.environment, "PYTHONPATH": ".", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {0, 1, 2}, done.stderr
    return done.stdout


@pytest.mark.parametrize("site", ["lite"], indirect=True)
def test_the_tutorial_does_what_it_says(site: Site, workers: list[Worker]) -> None:
    """An order that is called by its command is packed once, and the commands tell of it."""
    assert len(workers) == 3
    _, consumer, _ = workers
    (call,) = (each for each in commands() if " call " in each)
    assert told(call, site)
    wait_until(
        lambda: site.database["parcels"].count_documents({"order": "order-1"}) == 1,
        description="the parcel of order-1 is packed",
        seconds=60,
    )
    consumer.wait_for("packed order-1")
    (status,) = (each for each in commands() if each.endswith("outbox status"))
    assert "outbox partition default" in told(status, site)
    assert site.database["orders"].find_one({"_id": "order-1"}) == {"_id": "order-1", "paid": True}
