"""The Outbox page's answers, from a Flower that is started as its users start it."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from bson import ObjectId

from devstack.service import accepts, free_port
from postroom import Outbox, wire
from postroom.store.quarantine import Quarantine, Quarantined
from postroom.store.values import OutboxPartition
from tests.site import Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devstack.stack import Stack
    from tests.site import Worker

PASSWORD = "pass, word"  # noqa: S105 - the test's own


class Answer(NamedTuple):
    """What Flower answered."""

    status: int
    body: Any


class Flower:
    """A running Flower, asked as a browser would."""

    def __init__(self, worker: Worker, port: int, prefix: str = "") -> None:
        self.worker = worker
        self.address = f"http://127.0.0.1:{port}{prefix}"

    def metrics(self) -> str:
        """Return what Flower tells Prometheus."""
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=30) as answer:
            return bytes(answer.read()).decode()

    def ask(
        self, path: str, body: Any = None, *, user: str | None = "flower", **headers: str
    ) -> Answer:
        """Ask for a path behind /outbox; with a body it is a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/outbox{path}", data=data)
        if user is not None:
            coded = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
            request.add_header("Authorization", f"Basic {coded}")
        request.add_header("Content-Type", "application/json")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return _answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.read())


def _answer(status: int, body: bytes) -> Answer:
    try:
        return Answer(status, json.loads(body))
    except ValueError:
        return Answer(status, body.decode())


def start(site: Site, words: str = "", prefix: str = "", **variables: str) -> Flower:
    """Start Flower and wait for it."""
    port = free_port()
    worker = site.start(
        f"celery -A tasks flower {words}".strip(),
        FLOWER_PORT=str(port),
        FLOWER_ADDRESS="127.0.0.1",
        POSTROOM_FLOWER_PASSWORD=PASSWORD,
        **variables,
    )
    wait_until(
        lambda: accepts(port) or worker.process.poll() is not None, description="Flower listens"
    )
    assert worker.process.poll() is None, worker.text()
    return Flower(worker, port, prefix)


@pytest.fixture
def flower(lite_site: Site) -> Flower:
    """Return a Flower on a database where nothing was ever relayed."""
    return start(lite_site)


@pytest.fixture(scope="module")
def shared(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Flower]]:
    """Return a site with three quarantined rows and a Flower, which no test changes."""
    folder: Path = tmp_path_factory.mktemp("flower")
    address = stack.environment["POSTROOM_REDIS_URL"].rpartition("/")[0]
    site = Site({**stack.environment, "POSTROOM_REDIS_URL": f"{address}/15"}, folder)
    quarantine(site, 3, reason="It is too large")
    yield site, start(site)
    site.close()


def partitions(flower: Flower) -> dict[str, Any]:
    """Return what is shown of partitions, once both the database and the workers were asked."""

    def asked() -> Any:
        found = flower.ask("/api/partitions").body
        known = all(
            found[part]["at"] or found[part]["trouble"] for part in ("partitions", "workers")
        )
        return found if known else None

    return dict(wait_until(asked, description="both were asked"))


def test_nothing_is_shown_without_the_password(flower: Flower) -> None:
    """Neither the page, nor its assets, nor any answer; and whoever has it sees them."""
    for path in ("", "/", "/assets/outbox.js", "/api/partitions", "/api/topics"):
        assert flower.ask(path, user=None).status == 401, path
        assert flower.ask(path, user="other").status == 401, path
        assert flower.ask(path).status == 200, path
    for path in ("/api/nothing", "/assets/../adapter.py", "/assets/%2e%2e/adapter.py"):
        assert flower.ask(path).status in (403, 404), path


def test_the_menu_has_the_page_behind_a_prefix_too(lite_site: Site) -> None:
    """Flower's own pages lead to it, and it asks behind the prefix."""
    flower = start(lite_site, "--url_prefix=fl", prefix="/fl")
    page = flower.ask("").body
    assert 'href="/fl/outbox"' in page
    assert 'src="/fl/outbox/assets/outbox.js"' in page
    assert flower.ask("/api/partitions").status == 200
    assert flower.ask("/assets/outbox.js").status == 200


def test_a_partition_that_no_relay_was_started_for_is_shown(
    flower: Flower, lite_site: Site
) -> None:
    """With what waits, and the command that starts one; and then who relays it."""
    assert partitions(flower)["partitions"]["value"] == []
    lite_site.insert(3)
    row: Any = wait_until(
        lambda: next(iter(partitions(flower)["partitions"]["value"]), None),
        description="it is seen",
    )
    assert (row["state"], row["view"]["waiting"]) == ("no relay", 3)
    assert "-Q relay.default" in row["sentence"]

    lite_site.start("celery -A tasks worker -Q relay --loglevel=INFO")
    row = wait_until(
        lambda: next(
            (r for r in partitions(flower)["partitions"]["value"] if r["state"] == "relaying"), None
        ),
        description="a relay is seen",
    )
    assert row["leader"]["owner"] == row["view"]["owner"]
    wait_until(
        lambda: partitions(flower)["partitions"]["value"][0]["view"]["waiting"] == 0,
        description="nothing waits",
    )


def test_an_embedded_broker_tells_nothing_of_topics(flower: Flower) -> None:
    """The sentence says which setting leads to what does not answer."""
    found = wait_until(
        lambda: flower.ask("/api/topics").body["topics"]["trouble"], description="it is said"
    )
    assert "POSTROOM_PULSAR_ADMIN_URL" in found


def quarantine(site: Site, count: int, *, reason: str) -> list[str]:
    """Put rows into quarantine, as a relay does, and return their ids."""
    ids = site.insert(count)
    rows = [
        Quarantined(row_id=ObjectId(each), position=number, reason=reason)
        for number, each in enumerate(ids)
    ]
    Quarantine(site.database, partition=OutboxPartition("default")).store(rows)
    return ids


def ended(flower: Flower) -> Any:
    """Wait until no act is under way, and return the last one."""

    def last() -> Any:
        running = flower.ask("/api/running-acts").body["running_acts"]
        return running[0] if running and running[0]["ended_at"] else None

    return wait_until(last, description="the act has ended")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "words"),
    [
        ("/api/quarantine/discard", {"confirmed": 3}, {"Sec_Fetch_Site": "cross-site"}, 403,
         "Cross"),
        ("/api/quarantine/discard", {"confirmed": 3}, {"Origin": "http://evil.example"}, 403,
         "Cross"),
        ("/api/quarantine/discard", {"confirmed": 3}, {"Content_Type": "text/plain"}, 415, "json"),
        ("/api/quarantine/discard", [1], {}, 400, "JSON object"),
        ("/api/quarantine/discard", {}, {}, 400, "confirmed"),
        ("/api/quarantine/discard", {"confirmed": 2}, {}, 409, "3 match now, and 2 were confirmed"),
        ("/api/quarantine/discard", {"confirmed": True}, {}, 400, "confirmed"),
        ("/api/quarantine/discard", {"confirmed": 0, "ids": []}, {}, 400, "ids"),
        ("/api/quarantine/discard", {"confirmed": 3, "ids": "x"}, {}, 400, "ids"),
        ("/api/quarantine/discard", {"confirmed": 3, "name": {"$ne": 1}}, {}, 400, "name is to be"),
        ("/api/quarantine/discard", {"confirmed": 3, "name": "a\0b"}, {}, 400, "null character"),
        ("/api/quarantine/discard", {"confirmed": 3, "since": "yesterday"}, {}, 400, "since"),
        ("/api/quarantine/redrive", {"confirmed": 3, "rate": 0}, {}, 400, "rate"),
        ("/api/quarantine/redrive", {"confirmed": 3, "rate": "inf"}, {}, 400, "rate"),
        ("/api/quarantine/delete", {"confirmed": 3}, {}, 404, ""),
        ("/api/scheduled/cancel", {"confirmed": 1}, {}, 409, "0 match now, and 1 were confirmed"),
        ("/api/scheduled/reschedule", {"confirmed": 0}, {}, 400, "at is to be a time"),
        ("/api/scheduled/reschedule", {"confirmed": 0, "at": "soon"}, {}, 400, "at is to be"),
        ("/api/scheduled/fire", {"confirmed": 0, "schedule": 7}, {}, 400, "schedule is to be"),
        ("/api/scheduled/fire", {"confirmed": 0, "rate": 0}, {}, 400, "rate"),
        ("/api/scheduled/cancel", {"confirmed": 0, "rate": "fast"}, {}, 400, "rate"),
        ("/api/scheduled/delete", {"confirmed": 0}, {}, 404, ""),
        ("/api/dead-letters/redrive", {"confirmed": 1, "topic": 7}, {}, 400, "topic"),
        ("/api/running-acts/77/stop", {}, {}, 404, "not under way"),
        ("/api/partitions/pause", {}, {}, 400, "Say which outbox partition"),
        ("/api/partitions/resume", {"partition": 7}, {}, 400, "partition is to be a text"),
        ("/api/partitions/stop", {"partition": "default"}, {}, 404, ""),
    ],
)  # fmt: skip
def test_what_may_not_be_is_refused(  # noqa: PLR0917 - one for each column
    shared: tuple[Site, Flower],
    path: str,
    body: Any,
    headers: dict[str, str],
    status: int,
    words: str,
) -> None:
    """By the server, with a sentence; nothing was done."""
    site, flower = shared
    answer = flower.ask(path, body, **headers)
    assert (answer.status, words in str(answer.body)) == (status, True), answer
    assert site.database[wire.QUARANTINE].count_documents({}) == 3
    assert flower.ask("/api/actions").body["actions"] == []


@pytest.mark.parametrize(
    ("query", "status", "matching"),
    [
        ("", 200, 3),
        ("?reason=TOO", 200, 3),
        ("?reason=.*", 200, 0),
        ("?name=nobody", 200, 0),
        ("?since=2001-01-01T00:00:00Z", 200, 3),
        ("?until=2001-01-01T00:00:00", 200, 0),
        ("?partition=other", 200, 0),
        ("?skip=2", 200, 3),
        ("?skip=-1", 400, None),
        ("?limit=99999", 400, None),
        ("?until=soon", 400, None),
    ],
)
def test_a_page_of_the_quarantine(
    shared: tuple[Site, Flower], query: str, status: int, matching: int | None
) -> None:
    """With the number that match; what cannot be asked is refused."""
    answer = shared[1].ask(f"/api/quarantine{query}")
    assert answer.status == status, answer
    assert answer.body.get("page", {}).get("matching") == matching


def test_some_are_chosen_by_their_ids_and_it_is_noted(lite_site: Site) -> None:
    """The others stay; the action log says who, what, which and how many."""
    first, second, _ = quarantine(lite_site, 3, reason="too large")
    flower = start(lite_site, POSTROOM_FLOWER_OPERATORS="ann, flower")
    begun = flower.ask("/api/quarantine/redrive", {"ids": [first, second], "confirmed": 2})
    assert begun.status == 200, begun
    act = ended(flower)
    assert (act["done"]["done"], act["failed"], act["who"]) == (2, False, "flower")
    assert flower.ask("/api/quarantine").body["page"]["matching"] == 1
    (action,) = flower.ask("/api/actions").body["actions"]
    assert (action["who"], action["by"], action["count"]) == ("flower", "Flower", 2)
    assert action["where"] == {"ids": f"{first}, {second}"}


def test_scheduled_events_are_found_moved_fired_and_cancelled(lite_site: Site) -> None:
    """By the filters, as many as were confirmed; each act is noted."""
    outbox = Outbox(lite_site.database, key="patientId")
    at = datetime(2040, 5, 1, 12, tzinfo=UTC)
    for n, patient in enumerate(("anna", "bert", "anna")):
        event = {"name": "Reminded", "data": {"patientId": patient, "secret": "mumps"}}
        outbox.publish(event, deliver_at=at + timedelta(hours=n), schedule=f"s{n}")
    flower = start(lite_site)

    def matching(query: str) -> list[str]:
        answer = flower.ask(f"/api/scheduled{query}")
        assert "mumps" not in str(answer.body)
        return [item["schedule"] for item in answer.body["page"]["items"]]

    assert matching("") == ["s0", "s1", "s2"]
    assert matching("?key=anna") == ["s0", "s2"]
    assert matching("?schedule=s1&name=Reminded&outbox=default") == ["s1"]
    assert matching("?outbox=billing") == []
    assert matching("?since=2040-05-01T13:00:00Z&limit=1") == ["s1"]
    moved = {"schedule": "s0", "confirmed": 1, "at": "2041-01-01T00:00:00Z", "rate": 50}
    assert flower.ask("/api/scheduled/reschedule", moved).status == 200
    ended(flower)
    assert matching("") == ["s1", "s2", "s0"]
    assert flower.ask("/api/scheduled/fire", {"schedule": "s2", "confirmed": 1}).status == 200
    ended(flower)
    assert matching("") == ["s2", "s1", "s0"]
    assert flower.ask("/api/scheduled/cancel", {"key": "anna", "confirmed": 2}).status == 200
    assert ended(flower)["done"]["done"] == 2
    assert matching("") == ["s1"]
    noted = [(each["what"], each["count"]) for each in flower.ask("/api/actions").body["actions"]]
    assert noted == [("scheduled cancel", 2), ("scheduled fire", 1), ("scheduled reschedule", 1)]


def test_who_is_no_operator_may_look_alone(lite_site: Site) -> None:
    """The server refuses, and says by which setting."""
    quarantine(lite_site, 1, reason="too large")
    flower = start(lite_site, POSTROOM_FLOWER_OPERATORS="ann")
    assert flower.ask("/api/quarantine").body["page"]["matching"] == 1
    acts = (
        "quarantine/redrive",
        "quarantine/discard",
        "dead-letters/redrive",
        "running-acts/1/stop",
    )
    plan = ("scheduled/cancel", "scheduled/reschedule", "scheduled/fire")
    for path in (*acts, *plan, "partitions/pause", "partitions/resume"):
        answer = flower.ask(f"/api/{path}", {"confirmed": 1})
        assert (answer.status, "POSTROOM_FLOWER_OPERATORS" in answer.body["sentence"]) == (
            403,
            True,
        )


def test_an_unknown_partition_is_not_paused(flower: Flower) -> None:
    """A name that nobody relays is refused with those that there are, and that is noted."""
    answer = flower.ask("/api/partitions/pause", {"partition": "<b>nobody"})
    assert (answer.status, "'<b>nobody'" in answer.body["sentence"]) == (400, True), answer
    (action,) = flower.ask("/api/actions").body["actions"]
    assert (action["what"], action["who"], action["count"]) == ("pause", "flower", 0)


def test_data_is_shown_only_where_payloads_are(lite_site: Site) -> None:
    """POSTROOM_SHOW_PAYLOADS=1, and without it nowhere."""
    (row,) = lite_site.insert(1)
    hidden = start(lite_site).ask(f"/api/journey?id={row}")
    assert hidden.body["found"]
    assert hidden.body["data"] is None
    shown = start(lite_site, POSTROOM_SHOW_PAYLOADS="1").ask(f"/api/journey?id={row}")
    assert '"name"' in shown.body["data"]


def test_flower_logs_as_workers_do(lite_site: Site) -> None:
    """One JSON object a line, where that is set."""
    flower = start(lite_site, POSTROOM_LOG_FORMAT="json")
    wait_until(lambda: "Visit me" in flower.worker.text(), description="it has begun")
    lines = [json.loads(line) for line in flower.worker.text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)


def test_a_mongodb_that_is_away_is_said(lite_site: Site) -> None:
    """Each answer says so in its place; Flower's own pages are there."""
    away = f"mongodb://127.0.0.1:{free_port()}/?directConnection=true"
    flower = start(lite_site, POSTROOM_MONGODB_URI=away)
    assert flower.ask("/api/running-acts").status == 200
    answer = flower.ask("/api/quarantine")
    assert (answer.status, "MongoDB at" in answer.body["sentence"]) == (503, True)
    assert "MongoDB" in partitions(flower)["partitions"]["trouble"]


def test_topics_are_shown_with_their_subscriptions(pulsar_site: Site) -> None:
    """Type, consumers, backlog and the age of the oldest that nobody has acknowledged."""
    consumer = pulsar_site.subscribe("test")
    producer = pulsar_site.pulsar.create_producer(pulsar_site.topic)
    for _ in range(3):
        producer.send(b"{}")
    flower = start(pulsar_site)

    def seen() -> Any:
        rows = flower.ask("/api/topics").body["topics"]["value"] or []
        events, dead = (
            [r for r in rows if r["role"] == role] for role in ("events", "dead letters")
        )
        ours = [s for s in events[0]["subscriptions"] if s["backlog"] == 3] if events else []
        return (
            (events[0], ours[0], dead) if ours and ours[0]["oldest_seconds"] is not None else None
        )

    topic, subscription, dead = wait_until(seen, description="the backlog is seen")
    assert topic["topic"] == pulsar_site.topic
    assert (subscription["name"], subscription["type"]) == ("test", "Exclusive")
    assert len(subscription["consumers"]) == 1
    assert 0 <= subscription["oldest_seconds"] < 120
    assert subscription["ours"]
    assert [each["exists"] for each in dead] == [False]
    of = f'{{subscription="test",topic="{pulsar_site.topic}"}}'
    assert f"postroom_subscription_backlog_entries{of} 3.0" in flower.metrics()
    consumer.close()
    nobody = f"postroom_subscription_consumers{of} 0.0"
    wait_until(lambda: nobody in flower.metrics(), description="metrics alone say that none reads")
    assert nobody in pulsar_site.run("celery -A tasks outbox metrics")


def test_the_doctors_findings_are_shown(shared: tuple[Site, Flower]) -> None:
    """Each with what was looked at, how well it is, what to do; missing workers too."""
    found = wait_until(
        lambda: shared[1].ask("/api/doctor").body["doctor"]["value"],
        description="the doctor has looked",
        seconds=60,
    )
    graded = {each["what"]: each["grade"] for each in found}
    assert set(graded.values()) <= {"ok", "warn", "fail"}
    assert graded["workers"] == "warn"
    assert all(each["found"] for each in found)
