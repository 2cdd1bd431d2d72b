"""Redis in every bad state that it can have: events flow all the same, and every worker lives."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from celery import Celery

from postroom.celery import queue_broker
from postroom.findings import Grade
from tests.bad_redis import STATES
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from devstack.valkey import Valkey
    from tests.site import Site, Worker

# What an application may have chosen for its task workers.
IMPATIENT = {
    "broker_connection_retry": False,
    "broker_connection_retry_on_startup": False,
    "broker_connection_max_retries": 3,
    "broker_channel_error_retry": False,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_transport_options": {},
}
METRIC = "postroom_celery_broker_up"
# The refusal, and once more where the state lasts longer than a minute.
MOST_LINES = 2
# What a connected worker asks of Redis is not refused then, or waits for minutes in its client.
UNNOTICED = {"without_memory", "frozen", "paused"}
UNNOTICED_SECONDS = 6.0


class Shop:
    """The shop's three kinds of workers, with a Redis of their own."""

    def __init__(self, site: Site, valkey: Valkey) -> None:
        self.site = site
        self.valkey = valkey
        self.numbers = 0

    def worker(self, queue: str, **conf: object) -> Worker:
        """Start a worker for a queue."""
        return self.site.start(
            f"celery -A tests.shop worker -Q {queue} --loglevel=INFO",
            POSTROOM_REDIS_URL=self.valkey.url,
            POSTROOM_METRICS_PORT="0",
            SHOP_CONF=json.dumps(conf),
        )

    def flows(self) -> None:
        """Make sure that an event that is written now is handled soon."""
        self.numbers += 1
        [event] = self.site.insert(1, first=self.numbers)
        seen = self.site.database["seen"]
        wait_until(lambda: seen.find_one({"event": event}), description="it is handled", seconds=10)

    def runs_tasks(self, path: Path) -> None:
        """Make sure that a task that is sent now is run soon."""
        app = Celery("sender", broker=self.valkey.url, set_as_current=False)
        app.send_task("shop.touch", [str(path)], retry=True)
        wait_until(path.exists, description="the task has run", seconds=40)
        path.unlink()


@pytest.mark.parametrize("state", STATES)
def test_a_redis_that_goes_bad_stops_nothing(
    lite_site: Site, valkey: Valkey, tmp_path: Path, state: str
) -> None:
    """Relay and consumer go on with whatever settings, and say so once; task workers wait."""
    shop = Shop(lite_site, valkey)
    ours = [shop.worker(queue, **IMPATIENT) for queue in ("relay", "consumer")]
    patient = shop.worker("celery")
    for worker in (*ours, patient):
        worker.wait_for("ready.")
    shop.flows()
    before = [len(worker.text()) for worker in ours]
    with STATES[state](valkey):
        _last(shop, ours, state)
    shop.flows()
    for worker, length in zip(ours, before, strict=True):
        assert worker.process.poll() is None, worker.text()[-3000:]
        said = [line for line in worker.text()[length:].splitlines() if "Redis at" in line]
        assert len(said) <= MOST_LINES, worker.text()[length:]
        assert "Traceback" not in worker.text()
    assert patient.process.poll() is None, patient.text()[-3000:]
    shop.runs_tasks(tmp_path / "touched")
    assert "Traceback" not in patient.text()
    assert "Deprecation" not in patient.text()
    for worker in ours:
        if "does not do what Celery asks" in worker.text():
            worker.wait_for("answers again", seconds=60)
        assert worker.stop() == 0


def _last(shop: Shop, workers: list[Worker], state: str = "") -> None:
    """Let the state last for a while, and events flow in it."""
    began = time.monotonic()

    def lasted() -> bool:
        shop.flows()
        if state in UNNOTICED:
            return time.monotonic() - began > UNNOTICED_SECONDS
        return all("does not do what Celery asks" in worker.text() for worker in workers)

    wait_until(lasted, description="both say what Redis does", seconds=80)


@pytest.mark.parametrize("state", STATES)
def test_a_redis_that_is_bad_at_the_start_stops_nothing(
    lite_site: Site, valkey: Valkey, tmp_path: Path, state: str
) -> None:
    """Workers that are started while Redis is in this state do their work, or wait for it."""
    shop = Shop(lite_site, valkey)
    with STATES[state](valkey):
        ours = [shop.worker(queue, **IMPATIENT) for queue in ("relay", "consumer")]
        patient = shop.worker("celery")
        ours[0].wait_for("Relaying partition")
        _last(shop, ours)
        for worker in (*ours, patient):
            assert worker.process.poll() is None, worker.text()[-3000:]
            assert (
                "Traceback" not in worker.text().partition("Unrecoverable")[0] or worker is patient
            )
    shop.runs_tasks(tmp_path / "touched")
    shop.flows()
    for worker in ours:
        worker.wait_for("answers again", seconds=60)
        assert worker.stop() == 0


# Between two cuts it takes what it is sent.
@pytest.mark.parametrize("state", [state for state in STATES if state != "cutting"])
def test_the_doctor_names_a_redis_that_is_bad(valkey: Valkey, state: str) -> None:
    """In seconds, with the reason; and says nothing more of it once it is well."""
    app = Celery("doctor", broker=valkey.url, set_as_current=False)
    assert [each.grade for each in queue_broker.examine(app)] == [Grade.OK]
    with STATES[state](valkey):
        began = time.monotonic()
        [found] = queue_broker.examine(app)
        assert time.monotonic() - began < queue_broker.SECONDS + 1
        assert found.grade is Grade.FAIL, found
        assert found.found.startswith("Redis at 127.0.0.1"), found
    app = Celery("doctor", broker=valkey.url, set_as_current=False)
    wait_until(
        lambda: [each.grade for each in queue_broker.examine(app)] == [Grade.OK],
        description="it is well",
    )


def test_metrics_and_the_doctor_tell_that_redis_is_frozen(lite_site: Site, valkey: Valkey) -> None:
    """Which no connected worker notices for minutes: by the metric, and by the command line."""
    shop = Shop(lite_site, valkey)
    worker = shop.worker("relay", worker_enable_remote_control=True)
    worker.wait_for("Answering http")
    found = re.search(r"Answering (http://[^/]+)/metrics", worker.text())
    assert found is not None

    def told() -> str:
        with urllib.request.urlopen(f"{found[1]}/metrics", timeout=10) as answer:
            text = str(answer.read().decode())
        return next(line for line in text.splitlines() if line.startswith(METRIC))

    assert told() == f"{METRIC} 1.0"
    with STATES["frozen"](valkey):
        wait_until(lambda: told() == f"{METRIC} 0.0", description="the metric tells it")
    wait_until(lambda: told() == f"{METRIC} 1.0", description="and that it is over")


def test_a_frozen_redis_keeps_no_worker_from_ending(lite_site: Site, valkey: Valkey) -> None:
    """TERM ends relay and consumer in order while Redis hangs, whatever timeouts are set."""
    shop = Shop(lite_site, valkey)
    ours = [
        shop.worker(queue, broker_transport_options={"socket_timeout": 3600})
        for queue in ("relay", "consumer")
    ]
    for worker in ours:
        worker.wait_for("ready.")
    valkey.freeze()
    try:
        # Now, and not when the client's library has found out: it takes half a minute for that.
        for worker in ours:
            assert worker.stop() == 0
    finally:
        valkey.thaw()
