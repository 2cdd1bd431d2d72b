"""Workers as a person on call and Prometheus see them: /metrics, /livez, /readyz."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from devstack.service import free_port
from postroom.telemetry import pulse
from postroom.telemetry.health import Health
from tests.relays import relaying
from tests.site import row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from devstack.valkey import Valkey
    from tests.site import Site, Worker

ANY_PORT = {"POSTROOM_METRICS_PORT": "0"}
ANSWERING = re.compile(r"Answering (http://[^/]+)/metrics")


def get(url: str) -> tuple[int, str]:
    """Return status and text of what is asked for; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def url_of(worker: Worker) -> str:
    """Return where a worker answers, as its log says."""
    worker.wait_for("Answering http")
    found = ANSWERING.search(worker.text())
    assert found is not None
    return found[1]


def ready(worker: Worker) -> str:
    """Wait until a worker is ready, and return where it answers."""
    url = url_of(worker)
    wait_until(lambda: get(f"{url}/readyz")[0] == 200, description="ready")
    assert get(f"{url}/livez")[0] == 200
    return url


def becomes(url: str, name: str, expected: float, **labels: str) -> None:
    """Wait until a sample has a value."""
    wait_until(
        lambda: value(url, name, **labels) == expected, description=f"{name} becomes {expected}"
    )


def metrics(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample that is told."""
    status, text = get(f"{url}/metrics")
    assert status == 200, text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(url: str, name: str, **labels: str) -> float | None:
    """Return the value of one sample, or None where it is not told."""
    return metrics(url).get((name, frozenset(labels.items())))


def test_a_relay_and_its_standby_tell_how_they_are(lite_site: Site) -> None:
    """Both are alive and ready; counts, lag and backlog are right; unserved rows show as such."""
    lite_site.subscribe().close()
    leader, standby = (lite_site.relay(**ANY_PORT) for _ in range(2))
    urls = ready(leader), ready(standby)
    wait_until(
        lambda: {get(f"{url}/readyz")[1].split()[-1] for url in urls} == {"relaying", "standby"},
        description="one relays, the other one stands by",
    )
    in_office = next(url for url in urls if "relaying" in get(f"{url}/readyz")[1])
    lite_site.insert(25)
    lite_site.outbox.insert_one(row(1, partition="unserved"))
    own = {"partition": "default"}
    becomes(in_office, "postroom_relay_events_published_total", 25, **own)
    assert (value(in_office, "postroom_relay_published_bytes_total", **own) or 0) > 25 * 20
    assert value(in_office, "postroom_relay_state", **own, state="relaying") == 1
    becomes(in_office, "postroom_relay_lag_seconds", 0, **own)
    for url in urls:
        becomes(url, "postroom_relay_backlog_events", 1, partition="unserved")
        assert value(url, "postroom_relay_ever_relayed", partition="unserved") == 0
        becomes(url, "postroom_relay_backlog_events", 0, **own)
        assert value(url, "postroom_relay_oldest_unsent_seconds", **own) == 0
        assert (value(url, "postroom_relay_oplog_window_seconds") or 0) > 0
    lite_site.run("celery -A tasks outbox pause")
    becomes(in_office, "postroom_relay_state", 1, **own, state="paused")
    for url in urls:
        becomes(url, "postroom_relay_paused", 1, **own)
        assert value(url, "postroom_relay_paused", partition="unserved") == 0
    ids = [str(each["_id"]) for each in lite_site.outbox.find()]
    told = "".join(get(f"{url}/metrics")[1] for url in urls)
    assert not [each for each in ids if each in told]


def test_backlog_and_age_are_told_where_no_relay_runs(lite_site: Site) -> None:
    """Flower's own /metrics has them, also of a partition that never had a relay."""
    relay = lite_site.relay()
    relay.wait_for("Relaying partition")
    wait_until(
        lambda: "position" in lite_site.checkpoint and "scan" not in lite_site.checkpoint,
        description="its scan",
    )
    assert relay.stop() == 0
    lite_site.insert(7)
    lite_site.outbox.insert_one(row(1, partition="unserved"))
    port = free_port()
    flower = lite_site.start(
        "celery -A tasks flower",
        FLOWER_PORT=str(port),
        FLOWER_ADDRESS="127.0.0.1",
        POSTROOM_FLOWER_PASSWORD="pass",  # noqa: S106 - nobody's
    )
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: get(f"{url}/metrics")[0] == 200, description="Flower answers")
    becomes(url, "postroom_relay_backlog_events", 7, partition="default")
    becomes(url, "postroom_relay_backlog_events", 1, partition="unserved")
    wait_until(
        lambda: (value(url, "postroom_relay_oldest_unsent_seconds", partition="default") or 0) >= 3,
        description="an age that grows",
    )
    assert flower.process.poll() is None
    assert 'backlog_events{partition="default"} 7.0' in lite_site.run(
        "celery -A tasks outbox metrics"
    )


def test_a_consumer_and_a_task_worker_tell_how_they_are(lite_site: Site) -> None:
    """The one when it reads its topics, the other when it takes tasks; events are counted."""
    consumer = lite_site.consumer(**ANY_PORT)
    worker = lite_site.start("celery -A tasks worker -c 2 --loglevel=INFO", **ANY_PORT)
    url, port_of_worker = ready(consumer), ready(worker)
    assert worker.stop() == 0  # nobody holds its port now, its pool's processes included
    assert get(f"{port_of_worker}/livez")[0] == 0
    assert value(url, "postroom_consumer_state", subscription="test", state="consuming") == 1
    assert value(url, "postroom_consumer_held_events", subscription="test") == 0
    assert consumer.stop() == 0


def test_a_redis_that_is_away_changes_neither_answer(lite_site: Site, valkey: Valkey) -> None:
    """Relay and consumer go on, a task worker waits, and each says so."""
    variables = {**ANY_PORT, "POSTROOM_REDIS_URL": valkey.url}
    tasks = lite_site.start("celery -A tasks worker -c 1 --loglevel=INFO", **variables)
    workers = lite_site.relay(**variables), lite_site.consumer(**variables), tasks
    urls = [ready(each) for each in workers]
    workers[0].wait_for("Relaying partition")  # ready was it before, standing by
    valkey.stop()
    for each, url in zip(workers, urls, strict=True):
        each.wait_for("does not do what Celery asks")
        for probe in ("livez", "readyz"):
            status, said = get(f"{url}/{probe}")
            assert status == 200, said


def test_a_second_worker_on_the_port_is_refused(lite_site: Site) -> None:
    """With exit code 1 and a sentence that names port and remedy."""
    port = str(free_port())
    first = lite_site.relay(POSTROOM_METRICS_PORT=port)
    assert url_of(first).endswith(f":{port}")
    second = lite_site.relay(POSTROOM_METRICS_PORT=port)
    assert second.exit_code() == 1
    assert f"POSTROOM_METRICS_PORT is {port}, which cannot be had" in second.text()
    assert "Traceback" not in second.text()


def test_a_relay_whose_thread_stands_still_is_not_alive(lite_site: Site) -> None:
    """A routing function that never comes back holds the very thread; the pulse tells it."""
    stuck = threading.Event()

    def route(_name: str, _data: Mapping[str, Any]) -> str | None:
        stuck.wait(30)
        return None

    health = Health()
    with relaying(lite_site, topics=route) as relay:
        found, hear = pulse.of_relay("default", hang_seconds=0.75)
        relay.observer.subscribe(hear)
        health.follow(found)
        wait_until(lambda: health.liveness().well, description="alive")
        lite_site.insert(1)
        wait_until(lambda: not health.liveness().well, description="not alive")
        stuck.set()
        wait_until(lambda: health.liveness().well, description="alive again")


def test_json_logs_are_one_object_a_line_with_fields(lite_site: Site) -> None:
    """A relay's name its place, a handler's its event; nothing else is written, and no payload."""
    # Celery warns root before anything is set up.
    variables = {"POSTROOM_LOG_FORMAT": "json", "PYTHONWARNINGS": "ignore"}
    command = "celery -A tests.instrumented worker --loglevel=INFO -Q"
    relay = lite_site.start(f"{command} relay", **variables)
    relay.wait_for("Relaying partition")
    consumer = lite_site.start(f"{command} consumer", **variables)
    (event_id,) = lite_site.insert(1, name="Logged\nforged")
    consumer.wait_for("a handler has logged")
    found = {
        each: [json.loads(line) for line in each.text().splitlines()] for each in (relay, consumer)
    }
    began = next(line for line in found[relay] if line.get("action") == "term_began")
    assert began["epoch"] == 1
    assert began["partition"] == "default"
    said = next(line for line in found[consumer] if "a handler has logged" in line["message"])
    assert said["event_id"] == event_id
    assert (said["attempt"], said["position"]) == (1, 1)
    assert said["handler"].endswith("log")
    assert said["message"] == "a handler has logged Logged\nforged"
    assert relay.stop() == consumer.stop() == 0


def test_messages_are_cloud_events_where_that_is_asked_for(lite_site: Site) -> None:
    """With the position as `sequence`; consumers handle them as ever."""
    plain = lite_site.subscribe()
    variables = {"POSTROOM_CLOUDEVENTS": "1", "POSTROOM_CLOUDEVENTS_SOURCE": "https://shop/outbox"}
    lite_site.start("celery -A tasks worker -Q relay --loglevel=INFO", **variables)
    rows = [{**row(number), "key": "k"} for number in range(3)]
    ids = [str(each["_id"]) for each in rows]
    lite_site.outbox.insert_many(rows)
    for number, message in enumerate(lite_site.receive(plain, 3), start=1):
        found = message.properties()
        assert found["ce_id"] == found["id"] == ids[number - 1]
        assert found["ce_sequence"] == found["position"] == str(number)
        assert found["ce_source"] == "https://shop/outbox"
        assert (found["ce_type"], found["ce_partitionkey"]) == ("Counted", "k")
        assert json.loads(message.data())["name"] == "Counted"
