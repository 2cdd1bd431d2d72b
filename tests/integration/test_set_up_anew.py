"""An oplog that is younger than the checkpoint: of a replica set set up anew, or rolled over."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient

from devstack.mongodb import MongoDB
from devstack.service import free_port
from postroom import wire
from tests.relays import relaying
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.site import Site

pytestmark = pytest.mark.pulsar


class Alone(MongoDB):
    """The server outside of its replica set, as its administrator starts it for a restore."""

    def command(self) -> Sequence[str]:
        """Return the command without the replica set."""
        words = list(super().command())
        at = words.index("--replSet")
        return words[:at] + words[at + 2 :]


@pytest.fixture(scope="module")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoDB]:
    """Lend a server whose replica set may be set up anew."""
    with running(MongoDB(tmp_path_factory.mktemp("anew"), port=free_port())) as server:
        yield server


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[MongoDB]:
    """Lend a server whose oplog is soon rolled over."""
    with running(MongoDB(tmp_path, port=free_port(), oplog_mb=1)) as server:
        yield server


@contextlib.contextmanager
def running(server: MongoDB) -> Iterator[MongoDB]:
    """Start a server, and stop it in the end."""
    with contextlib.ExitStack() as over:
        over.callback(server.stop)
        server.start()
        server.wait_ready()
        yield server


@contextlib.contextmanager
def set_up_anew(server: MongoDB) -> Iterator[MongoClient[Any]]:
    """Keep the files and forget the replica set; lends the server in between."""
    server.stop()
    alone = Alone(server.folder.parent, port=free_port())
    try:
        alone.start()
        alone.wait_ready()
        with MongoClient[Any](alone.direct_url) as client:
            assert "local" in client.list_database_names()
            client.drop_database("local")
            yield client
    finally:
        alone.stop()
    server.start()
    server.wait_ready()


def relayed_to_a_quiet_moment(site: Site) -> list[str]:
    """Relay some rows, and have a checkpoint whose token is of no event."""
    with relaying(site):
        sent = site.insert(3)
        wait_until(lambda: site.stored() == sent, description="they are sent")
        wait_until(lambda: "collection" in site.checkpoint, description="it is known", seconds=30)
        wait_until(lambda: site.checkpoint["position"] == 3, description="a checkpoint")
    with site.outbox.watch() as stream:
        stream.try_next()
        token = stream.resume_token
    site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"resumeToken": token}})
    return sent


def test_what_was_not_sent_before_the_backup_is_sent(
    mongodb: MongoDB, site_on: Callable[[str], Site], caplog: pytest.LogCaptureFixture
) -> None:
    """The collection is the very same; the stream never shows what is older than the oplog."""
    site = site_on(mongodb.url)
    written = relayed_to_a_quiet_moment(site)
    written += site.insert(2)
    with set_up_anew(mongodb):
        pass
    with relaying(site):
        wait_until(lambda: len(site.stored()) >= 5, description="what was not sent", seconds=60)
        wait_until(lambda: "scan" not in site.checkpoint, description="its end", seconds=60)
        written += site.insert(1)
        wait_until(lambda: len(site.stored()) >= 6, description="what is new")
    assert site.stored() == written
    assert caplog.text.count("the replica set was set up anew since") == 1
    with relaying(site):
        written += site.insert(1)
        wait_until(lambda: site.stored() == written, description="it goes on in the stream")
    assert caplog.text.count("the replica set was set up anew since") == 1


def test_an_oplog_that_has_rolled_over_is_not_taken_for_that_of_a_restored_set(
    forgetful: MongoDB, site_on: Callable[[str], Site], caplog: pytest.LogCaptureFixture
) -> None:
    """Both are younger than the checkpoint; the remedy of this one is a larger oplog."""
    site = site_on(forgetful.url)
    written = relayed_to_a_quiet_moment(site)
    reached = site.checkpoint["clusterTime"]
    written += site.insert(2)

    def is_younger() -> bool:
        site.database["ballast"].insert_many([{"text": "x" * 10_000} for _ in range(200)])
        first = site.mongodb["local"]["oplog.rs"].find_one({}, sort=[("$natural", 1)]) or {}
        return bool(first["ts"] > reached)

    wait_until(is_younger, description="the oplog has rolled over")
    with relaying(site):
        wait_until(lambda: site.stored() == written, description="what was not sent")
    assert "it has rolled over since, for which it has to be larger" in caplog.text
    assert "the replica set was set up anew since" not in caplog.text


def test_what_was_restored_twice_is_not_sent_once_more(
    mongodb: MongoDB, site_on: Callable[[str], Site]
) -> None:
    """As by mongorestore, and again with --drop: the stream tells of an exchange, not of ours."""
    site = site_on(mongodb.url)
    written = relayed_to_a_quiet_moment(site)
    rows = list(site.outbox.find())
    with set_up_anew(mongodb) as client:
        client[site.name].drop_collection(wire.OUTBOX)
    site.outbox.insert_many(rows)
    site.outbox.drop()
    site.outbox.insert_many(rows)
    with relaying(site):
        wait_until(lambda: "scan" not in site.checkpoint, description="the end", seconds=60)
        written += site.insert(1)
        wait_until(lambda: written[-1] in site.stored(), description="what is new", seconds=60)
    assert site.stored() == written


@pytest.mark.parametrize("preserved", [False, True], ids=["twice", "--preserveUUID"])
def test_an_unknown_token_tells_what_a_server_that_lived_on_takes_for_news(
    pulsar_site: Site, mongodb: MongoDB, *, preserved: bool
) -> None:
    """As docs/continuity.md has it: the relay scans then, and leaves out what the topics have."""
    site = pulsar_site
    with MongoClient[Any](mongodb.url) as other:
        other[site.name]["lived"].insert_one({})
        written = relayed_to_a_quiet_moment(site)
        written += site.insert(2)
        rows, checkpoint = list(site.outbox.find()), site.checkpoint
        checkpoint["resumeToken"] = {"_data": "82" + "0" * 60}
        site.mongodb.close()
        site.environment["POSTROOM_MONGODB_URI"] = mongodb.url
        site.mongodb = MongoClient(mongodb.url, tz_aware=True)
        site.database = site.mongodb[site.name]
        restored(site, rows, uuid=checkpoint["collection"] if preserved else None)
        site.database[wire.CHECKPOINTS].insert_one(checkpoint)
    with relaying(site, wait=False):
        wait_until(lambda: len(site.stored()) >= 5, description="what was not sent", seconds=60)
        wait_until(lambda: "scan" not in site.checkpoint, description="its end", seconds=60)
        written += site.insert(1)
        wait_until(lambda: site.stored()[-1:] == written[-1:], description="what is new")
    assert site.stored() == written


def restored(site: Site, rows: list[Any], *, uuid: Any) -> None:
    """Do what mongorestore does: with --preserveUUID, or without it and again with --drop."""
    if uuid is not None:
        create = {"op": "c", "ns": f"{site.name}.$cmd", "ui": uuid, "o": {"create": wire.OUTBOX}}
        site.mongodb.admin.command("applyOps", [create])
    else:
        site.outbox.insert_many(rows)
        site.outbox.drop()
    site.outbox.insert_many(rows)
