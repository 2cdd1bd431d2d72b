"""Handlers that start processes: none hangs, and none keeps the worker's connections."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from tests import children
from tests.site import row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.site import Site, Worker

COMMAND = "celery -A tests.shop worker -Q consumer -E --loglevel=INFO"
# 3,000 forks were counted once: one child hung before the worker withheld its locks, none since.
# The lock that it waited for is held on purpose in the first child of each of LOCKED.
CHILDREN = {
    "fork": 60,
    "bare fork": 60,
    "pool of forks": 10,
    "subprocess": 20,
    "subprocess with a hook": 20,
    "spawn": 3,
    "forkserver": 3,
}
LOCKED = ("fork", "bare fork", "pool of forks")
# How many processes a way of starting one takes, where that is more than the child itself.
AT_LEAST = {"spawn": 2, "forkserver": 3}
# As fast as without children: the broker sees at once that the worker's connection is closed.
SOON_SECONDS = 15


def test_no_child_hangs_that_a_handler_starts(site: Site, tmp_path: Path) -> None:
    """Children that are started beside busy threads, in any way, all do their work and end."""
    relay = site.relay()
    worker = site.start(COMMAND, SHOP_FOLDER=str(tmp_path))
    worker.wait_for("Consuming ")
    events = [
        {"way": way, "locks": number < LOCKED.count(way)}
        for way, count in CHILDREN.items()
        for number in range(count)
    ]
    rows = [row(0) | {"data": {"name": "Forking", "data": event}} for event in events]
    site.outbox.insert_many(rows)
    seen = site.database["seen"]

    def all_are_handled() -> bool:
        assert "the child hangs" not in worker.text()
        return seen.count_documents({}) == len(rows)

    wait_until(all_are_handled, description="all are handled", seconds=100)
    assert all((tmp_path / str(each["_id"])).exists() for each in rows)
    assert [worker.stop(), relay.stop()] == [0, 0]


def started_by(worker: Worker) -> list[psutil.Process]:
    """Return the processes of the worker's session, also those that have another parent by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(process.pid) == worker.process.pid != process.pid:
                found.append(process)
    return found


@pytest.mark.parametrize("start", sorted(children.LEAVING))
def test_children_that_outlive_a_killed_worker_hold_back_nothing(
    site: Site, tmp_path: Path, start: str
) -> None:
    """What the killed worker had is delivered to another one at once."""
    site.relay()
    worker = site.start(COMMAND, SHOP_FOLDER=str(tmp_path), SHOP_START=start)
    worker.wait_for("Consuming ")
    [event] = site.insert(1, name="Leaving")
    wait_until((tmp_path / event).exists, description="the handler has started one")
    os.kill(worker.process.pid, signal.SIGKILL)
    try:
        another = site.start(COMMAND, SHOP_FOLDER=str(tmp_path))
        another.wait_for("Consuming ")
        try:
            wait_until(
                lambda: site.database["seen"].find_one({"event": event}),
                description="it is handled again",
                seconds=SOON_SECONDS,
            )
        except AssertionError as error:
            # Whether the broker has not delivered it, or the worker not handled it.
            error.add_note(another.text()[-3000:])
            raise
        assert len(started_by(worker)) >= AT_LEAST.get(start, 1)
    finally:
        for child in started_by(worker):
            child.kill()
