"""`make run`: one screen, everything on it, and nothing left afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from pymongo import MongoClient

from tests.site import ROOT
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def run(folder: Path, screen: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start what `make run` starts."""
    with screen.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "devstack", "run", "--folder", str(folder), *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def test_the_demonstration_shows_events_and_leaves_nothing(tmp_path: Path) -> None:
    """Published and consumed lines, Flower's address; Ctrl-C ends all; a second run goes on."""
    for attempt in ("first", "second"):
        screen = tmp_path / f"{attempt}.txt"
        program = run(tmp_path / "data", screen)
        try:
            wait_until(
                lambda: "consumed" in screen.read_text(),  # noqa: B023 - waited for at once
                description="the first event is consumed",
                seconds=60,
            )
            children = psutil.Process(program.pid).children(recursive=True)
        finally:
            program.send_signal(signal.SIGINT)
            code = program.wait(60)
        text = screen.read_text()
        assert code == 0, text
        assert "http://127.0.0.1:" in text
        assert "celery -A tasks worker -Q relay" in text
        assert "Traceback" not in text
        assert "stopped" in text
        _, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []


@pytest.mark.pulsar
@pytest.mark.timeout(400)  # real Pulsar alone takes a minute and more to start beside other work
def test_the_demonstration_divides_the_outbox(tmp_path: Path) -> None:
    """Two relays share four outbox partitions, and events are consumed."""
    screen = tmp_path / "screen.txt"
    data = tmp_path / "data"
    program = run(data, screen, "--partitions", "4", "--relays", "2", "--pause", "0.2")

    def served(name: str) -> int:
        log = data / "logs" / f"{name}.log"
        return log.read_text().count("Relaying partition") if log.exists() else 0

    try:
        wait_until(
            lambda: "consumed" in screen.read_text() and served("relay") and served("relay2"),
            description="both relay, and an event is consumed",
            seconds=270,
        )
    finally:
        program.send_signal(signal.SIGINT)
        code = program.wait(60)
    assert code == 0, screen.read_text()
    assert "Traceback" not in screen.read_text()


@pytest.mark.pulsar
def test_the_demonstration_on_pulsar_shows_each_event_once(tmp_path: Path) -> None:
    """What `make run PULSAR=real` starts: in a fresh folder too, where collections are made."""
    # Its own words alone: where make runs the tests, this one would tell of folders and levels.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    make = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "run", "PULSAR=real"],
        cwd=ROOT,
        env=plain,
        capture_output=True,
        text=True,
        check=True,
    )
    options = make.stdout.rpartition("-m devstack run")[2].replace("\\\n", " ").split()
    assert options == ["--real-pulsar"]
    screen = tmp_path / "screen.txt"
    program = run(tmp_path / "data", screen, *options, "--pause", "0.1")

    def consumed() -> Counter[str]:
        return Counter(re.findall(r"consumed +(\S+ for \S+)", screen.read_text()))

    try:
        wait_until(lambda: consumed().total() >= 20, description="events are consumed", seconds=90)
        seen = consumed()
        (uri,) = set(re.findall(r"mongodb://127\.0\.0\.1:\d+", screen.read_text()))
        with MongoClient[dict[str, Any]](uri, directConnection=True) as client:
            charts = list(client["aid-kit"]["patientMedicines"].find())
    finally:
        program.send_signal(signal.SIGINT)
        code = program.wait(60)
    text = screen.read_text()
    assert code == 0, text
    assert "Traceback" not in text + (tmp_path / "data/logs/consumer.log").read_text()
    applied = Counter(
        f"{entry['medicineId']} for {chart['_id']}"
        for chart in charts
        for entry in chart["history"]
    )
    assert seen <= applied, seen - applied
    assert text.index("stopping") < text.index("stopped")
