"""Starting wrongly: one sentence that says what to change, and nothing else."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.site import Site

COMMANDS = [
    "celery -A tasks worker -Q relay",
    "celery -A tasks worker -Q consumer",
    "celery -A tasks worker",
    "celery -A tasks flower",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_setting_is_one_sentence(lite_site: Site, command: str) -> None:
    """A wrong value ends each command at once, with a sentence that names the variable."""
    worker = lite_site.start(command, POSTROOM_MUTEX_RETRY_SECONDS="soon")
    assert worker.exit_code() != 0
    said = worker.text().strip()
    assert said.startswith("POSTROOM_MUTEX_RETRY_SECONDS is 'soon'")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-Q relay,celery", "A relay worker does nothing else"),
        ("-Q relay,relay.tenant-1", "a topic has one relay"),
        ("-Q relay --autoscale=4,1", "no use for --autoscale"),
        ("-Q consumer,celery", "A consumer worker does nothing else"),
        ("-Q consumer --autoscale=4,1", "no use for --autoscale"),
        ("-Q consumer.nobody", "There is no subscription nobody"),
        ("-Q consumer.", "There is no subscription"),
        ("-Q relay.", "names no outbox partition"),
        ("-Q relay,consumer", "A relay worker does nothing else"),
        ("-Q relay -B", "no use for -B (start beat by itself"),
        ("-Q consumer -B", "no use for -B"),
        ("-Q relay --pool=solo", "runs in threads: leave --pool=solo out"),
        ("-Q consumer -P solo -c 1", "runs in threads: leave --pool=solo out"),
        ("-Q consumer --max-tasks-per-child=5", "no use for --max-tasks-per-child"),
        ("-Q relay --max-memory-per-child=200000", "no use for --max-memory-per-child"),
        ("-Q consumer --time-limit=5 --soft-time-limit=3", "POSTROOM_HANDLER_TIMEOUT_SECONDS"),
        ("-Q consumer --prefetch-multiplier=4", "POSTROOM_PREFETCH"),
        ("-Q consumer -c 1000", "a worker has 1 to 256 threads"),
        ("-Q consumer -c 0", "a worker has 1 to 256 threads"),
        ("-Q relay -c 0", "a worker has 1 to 256 threads"),
        ("-Q consumer --max-tasks-per-child 0", "no use for --max-tasks-per-child"),
        ("-Q relay.a/b", "names the outbox partition 'a/b', and a name has 1 to 200"),
        ("-Q Relay", "-Q 'Relay' is no queue of postroom's relay"),
        ("-Q celery,CONSUMER.test", "-Q 'CONSUMER.test' is no queue of postroom's consumer"),
    ],
)
def test_options_that_do_not_fit_are_refused(lite_site: Site, options: str, words: str) -> None:
    """A mix of queues, autoscaling and unknown subscriptions are refused with the remedy."""
    worker = lite_site.start(f"celery -A tasks worker {options}")
    assert worker.exit_code() == 1
    assert words in worker.text()
    assert "Traceback" not in worker.text()


# What Celery, and its library, look at in gevent; the package itself is large, and has no part in
# the refusal.
GREEN = {
    "gevent/__init__.py": "",
    "gevent/signal.py": "",
    "gevent/socket.py": "import socket as its\n\n\nclass socket(its.socket):\n    pass\n",
    "gevent/monkey.py": "import socket\n\nfrom gevent import socket as green\n\n\n"
    "def patch_all():\n    socket.socket = green.socket\n",
}


@pytest.mark.parametrize(
    ("options", "patching", "words"),
    [
        ("-Q relay -P gevent", "", "A relay worker runs in threads: leave --pool=gevent out"),
        ("-Q consumer --pool=gevent -c 99", "", "runs in threads: leave --pool=gevent out"),
        ("-Q relay", "sitecustomize.py", "and gevent has replaced them in this process"),
        ("-Q consumer", "sitecustomize.py", "and gevent has replaced them in this process"),
    ],
)
def test_green_threads_are_refused(
    lite_site: Site, tmp_path: Path, options: str, patching: str, words: str
) -> None:
    """By option, or by what the application imports: Pulsar's client would stand still there."""
    (tmp_path / "gevent").mkdir()
    for name, text in GREEN.items():
        (tmp_path / name).write_text(text)
    if patching:
        (tmp_path / patching).write_text("import gevent.monkey\n\ngevent.monkey.patch_all()\n")
    path = f"{tmp_path}{os.pathsep}{lite_site.environment['PYTHONPATH']}"
    worker = lite_site.start(f"celery -A tasks worker {options}", PYTHONPATH=path)
    assert worker.exit_code() == 1
    assert words in worker.text()
    assert "Traceback" not in worker.text()


def test_a_relay_that_cannot_keep_its_promise_ends_and_says_why(lite_site: Site) -> None:
    """Exactly once on a broker that lacks it: the worker ends, and relays nothing."""
    worker = lite_site.relay(POSTROOM_DELIVERY="exactly_once")
    assert worker.exit_code() == 1
    assert "lacks fencing and deduplication" in worker.text()


def test_a_relay_worker_has_one_thread_whatever_is_asked_for(lite_site: Site) -> None:
    """Pool and concurrency given on the command line are overridden."""
    worker = lite_site.start("celery -A tasks worker -Q relay -c 8 -P prefork --loglevel=INFO")
    worker.wait_for("Relaying partition")
    assert "concurrency: 1 (thread)" in worker.text()
    assert worker.stop() == 0
    assert "-c means nothing to it" in worker.text()


@pytest.mark.parametrize(
    ("options", "threads"),
    [("", "3"), ("-c 5", "5"), ("-c 2", "2"), ("-P threads", "3"), ("-P prefork", "3")],
)
def test_a_consumers_threads_are_postrooms_or_the_commands(
    lite_site: Site, options: str, threads: str
) -> None:
    """What the application says of its task workers' pool means nothing to a consumer worker."""
    conf = {
        "worker_concurrency": 2,
        "worker_pool": "solo" if options == "" else "prefork",
        "worker_max_tasks_per_child": 1,
        "task_time_limit": 1,
    }
    worker = lite_site.start(
        f"celery -A tests.shop worker -Q consumer --loglevel=INFO {options}",
        POSTROOM_CONCURRENCY="3",
        SHOP_CONF=json.dumps(conf),
    )
    worker.wait_for("Consuming ")
    assert f"concurrency: {threads} (thread)" in worker.text()
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("conf", "queue"),
    [
        ({"task_default_queue": "consumer"}, ""),
        ({"task_default_queue": "relay"}, "-Q relay"),
        ({"task_routes": {"shop.*": {"queue": "consumer"}}}, "-Q consumer"),
        ({"task_routes": [{"shop.*": "relay.orders"}]}, "-Q relay.orders"),
        ({"task_queues": {"celery": {}, "consumer": {}}}, ""),
        ({"task_annotations": {"*": {"queue": "consumer"}}}, "-Q consumer"),
    ],
)
def test_a_queue_that_the_application_has_already_is_not_ours(
    lite_site: Site, conf: dict[str, object], queue: str
) -> None:
    """A worker of it is refused with the remedy, and a worker of another queue is not."""
    variables = {"SHOP_CONF": json.dumps(conf)}
    worker = lite_site.start(f"celery -A tests.shop worker {queue}", **variables)
    assert worker.exit_code() == 1
    assert "of its own, and a worker of that name is postroom's" in worker.text()
    assert "_queue=…)" in worker.text()
    assert "Traceback" not in worker.text()
    other = lite_site.start("celery -A tests.shop worker -Q celery -l INFO", **variables)
    other.wait_for("ready.")
    assert other.stop() == 0


def test_a_relay_and_a_consumer_of_other_names(lite_site: Site) -> None:
    """install(relay_queue=…, consumer_queue=…) gives way to the application's own queues."""
    variables = {
        "SHOP_CONF": json.dumps({"task_routes": {"shop.*": {"queue": "consumer"}}}),
        "SHOP_QUEUES": "outbox inbox",
    }
    command = "celery -A tests.shop worker --loglevel=INFO -Q"
    relay = lite_site.start(f"{command} outbox", **variables)
    consumer = lite_site.start(f"{command} inbox", **variables)
    tasks = lite_site.start(f"{command} consumer", **variables)
    relay.wait_for("Relaying partition")
    consumer.wait_for("Consuming ")
    tasks.wait_for("ready.")
    assert "Consuming" not in tasks.text()
    assert [worker.stop() for worker in (relay, consumer, tasks)] == [0, 0, 0]


def test_a_detached_relay_relays(lite_site: Site, tmp_path: Path) -> None:
    """--detach gives the same worker in the background."""
    log, pid = tmp_path / "detached.log", tmp_path / "detached.pid"
    command = "celery -A tasks worker -Q relay --loglevel=INFO --detach"
    starting = lite_site.start(f"{command} --logfile={log} --pidfile={pid}")
    assert starting.exit_code() == 0, starting.text()
    wait_until(
        lambda: log.exists() and "Relaying partition" in log.read_text(), description="it relays"
    )
    number = int(pid.read_text())
    os.kill(number, signal.SIGTERM)
    wait_until(lambda: not psutil.pid_exists(number), description="it has ended", seconds=15)


def test_handlers_are_the_applications_kind_of_task(lite_site: Site) -> None:
    """The hooks of its task_cls see a handler's task as any other one."""
    relay = lite_site.relay()
    consumer = lite_site.start(
        "celery -A tests.shop worker -Q consumer --loglevel=INFO",
        SHOP_TASK_CLS="tests.own_task:OwnTask",
    )
    consumer.wait_for("Consuming ")
    lite_site.insert(1)
    lite_site.insert(1, name="Rejected")
    consumer.wait_for("OwnTask ran shop.note")
    consumer.wait_for("OwnTask failed shop.rejected with Reject")
    assert lite_site.database["seen"].count_documents({}) == 1
    assert [relay.stop(), consumer.stop()] == [0, 0]
