"""Handlers that start processes: none hangs, and none keeps the worker's connections."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.site import Site, Worker

COMMAND = "celery -A tests.shop worker -Q consumer -E --loglevel=INFO"
CHILDREN = 150
# As fast as without children: the broker sees at once that the worker's connection is closed.
SOON_SECONDS = 15


def test_no_child_hangs_that_a_handler_forks(site: Site, tmp_path: Path) -> None:
    """Children that are forked beside busy threads all run, and end."""
    relay = site.relay()
    worker = site.start(COMMAND, SHOP_FOLDER=str(tmp_path))
    worker.wait_for("Consuming ")
    events = site.insert(CHILDREN, name="Forking")
    seen = site.database["seen"]
    wait_until(
        lambda: seen.count_documents({}) == CHILDREN, description="all are handled", seconds=60
    )
    assert all((tmp_path / event).exists() for event in events)
    assert "the child hangs" not in worker.text()
    assert [worker.stop(), relay.stop()] == [0, 0]


def started_by(worker: Worker) -> list[psutil.Process]:
    """Return the processes of the worker's session, also those that have another parent by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(process.pid) == worker.process.pid != process.pid:
                found.append(process)
    return found


@pytest.mark.parametrize("start", ["fork", "bare fork", "system", "inheriting"])
def test_children_that_outlive_a_killed_worker_hold_back_nothing(
    site: Site, tmp_path: Path, start: str
) -> None:
    """What the killed worker had is delivered to another one at once."""
    site.relay()
    worker = site.start(COMMAND, SHOP_FOLDER=str(tmp_path), SHOP_START=start)
    worker.wait_for("Consuming ")
    [event] = site.insert(1, name="Leaving")
    children = wait_until(
        lambda: started_by(worker), description="the handler starts one", seconds=20
    )
    os.kill(worker.process.pid, signal.SIGKILL)
    try:
        site.start(COMMAND, SHOP_FOLDER=str(tmp_path)).wait_for("Consuming ")
        wait_until(
            lambda: site.database["seen"].find_one({"event": event}),
            description="it is handled again",
            seconds=SOON_SECONDS,
        )
        assert [child.is_running() for child in children] == [True] * len(children)
    finally:
        for child in children:
            child.kill()
