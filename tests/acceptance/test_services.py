"""Services that are missing, wrong, or go away: a sentence, a retry, and nothing lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient

from devstack.mongodb import MongoDB
from devstack.service import _missing_library, free_port
from devstack.stack import Stack
from tests.site import Site, ids
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Standalone(MongoDB):
    """A mongod that is no replica set."""

    def command(self) -> list[str]:
        """Leave the replica set out."""
        words = list(super().command())
        at = words.index("--replSet")
        return words[:at] + words[at + 2 :]

    def answers(self) -> bool:
        """Say whether it answers at all."""
        address = f"mongodb://127.0.0.1:{self.port}/"
        with MongoClient[Any](address, serverSelectionTimeoutMS=300) as client:
            try:
                return bool(client.admin.command("ping"))
            except Exception:  # noqa: BLE001 - it does not answer yet
                return False


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("POSTROOM_MONGODB_URI", "MongoDB"),
        ("POSTROOM_PULSAR_URL", "Pulsar"),
    ],
)
@pytest.mark.parametrize("queue", ["relay", "consumer"])
def test_a_missing_service_is_named_and_sought_again(
    lite_site: Site, queue: str, variable: str, words: str
) -> None:
    """The log says which, where it was sought and when it is tried again; the worker lives."""
    port = free_port()
    address = f"{'mongodb' if 'MONGO' in variable else 'pulsar'}://127.0.0.1:{port}"
    worker = lite_site.start(
        f"celery -A tasks worker -Q {queue} --loglevel=INFO", **{variable: address}
    )

    def said() -> bool:
        lines = [text for text in worker.text().splitlines() if f"127.0.0.1:{port}" in text]
        return any(words in line and "again" in line for line in lines)

    wait_until(said, description="the log names the service, its address and what comes next")
    assert "Traceback" not in worker.text()
    assert worker.stop() == 0


@pytest.mark.parametrize(
    "options", ["directConnection=true", "replicaSet=rs0&directConnection=true"]
)
@pytest.mark.parametrize("queue", ["relay", "consumer"])
def test_a_mongodb_without_a_replica_set_is_refused_with_the_remedy(
    lite_site: Site, tmp_path: Path, queue: str, options: str
) -> None:
    """The sentence says how to make it one, whether or not the URI names one."""
    server = Standalone(tmp_path, port=free_port())
    server.start()
    server.wait_ready()
    try:
        address = f"mongodb://127.0.0.1:{server.port}/?{options}"
        command = f"celery -A tasks worker -Q {queue} --loglevel=INFO"
        worker = lite_site.start(command, POSTROOM_MONGODB_URI=address)
        worker.wait_for("replica set")
        worker.wait_for("rs.initiate()")
        assert worker.stop() == 0
    finally:
        server.stop()


@pytest.fixture
def own_services(tmp_path: Path) -> Iterator[Stack]:
    """Lend services that the test may end."""
    found = Stack(tmp_path / "services", given={}, usual_ports=False)
    found.start()
    yield found
    found.stop()


def test_services_that_end_and_come_back_lose_nothing(own_services: Stack, tmp_path: Path) -> None:
    """MongoDB and Redis killed and back in the middle: what is written afterwards arrives."""
    site = Site(own_services.environment, tmp_path)
    try:
        plain = site.subscribe()
        relay = site.relay()
        relay.wait_for("goes on from there")
        written = site.insert(10)
        assert ids(site.receive(plain, 10)) == written
        for service in (own_services.mongodb, own_services.valkey):
            assert service is not None
            service.kill()
            service.start()
            service.wait_ready()
        written = site.insert(10)
        assert ids(site.receive(plain, 10, seconds=60)) == written
        assert relay.stop() == 0
        assert "Traceback" not in relay.text().replace("Connection to broker lost", "")
    finally:
        site.close()


def test_a_missing_library_is_named_with_its_package() -> None:
    """What the loader says becomes a sentence with the remedy."""
    line = (
        "mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object "
        "file: No such file or directory"
    )
    assert "libcurl.so.4" in _missing_library(line)
    assert "apt-get install libcurl4" in _missing_library(line)


def test_redis_that_is_absent_stops_no_relay(lite_site: Site) -> None:
    """The relay begins without it after five seconds."""
    plain = lite_site.subscribe()
    relay = lite_site.relay(POSTROOM_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    written = lite_site.insert(5)
    assert ids(lite_site.receive(plain, 5)) == written
    wait_until(lambda: "Redis has not answered yet" in relay.text(), description="it is said")
