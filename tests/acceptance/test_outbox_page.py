"""The Outbox page's answers, from a Flower that is started as its users start it."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from devstack.service import accepts, free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site, Worker

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
