"""Housekeeping of scheduled events: what fails there holds up nothing that is due."""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from bson import Timestamp
from pymongo import MongoClient

from postroom import Outbox, wire
from postroom.partitioning import Partitioning
from postroom.relay import housekeeping
from postroom.relay.mover import Mover
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    from tests.site import Site

PAST = datetime(2020, 1, 1, tzinfo=UTC)
NOW = Timestamp(datetime.now(UTC), 1)
NAME = Partitioning().names[0]


@contextlib.contextmanager
def failing(site: Site, how: dict[str, Any]) -> Iterator[Database[Any]]:
    """Lend a database by a client whose deletions fail, until the block ends at the latest."""
    data = {"failCommands": ["delete"], "appName": site.name, **how}
    with MongoClient[dict[str, Any]](
        site.environment["POSTROOM_MONGODB_URI"], appname=site.name, tz_aware=True
    ) as client:
        admin = site.mongodb.admin
        admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
        try:
            yield client[site.name]
        finally:
            admin.command("configureFailPoint", "failCommand", mode="off")


@contextlib.contextmanager
def moving(database: Database[Any]) -> Iterator[None]:
    """Run a mover without its relay."""
    mover = Mover(database, partition=NAME, margin=timedelta(hours=1), tell=lambda _: None)
    mover.start()
    try:
        yield
    finally:
        mover.stop()


def fire(site: Site, name: str) -> None:
    """Have an event that is due be moved."""
    Outbox(site.database).publish({"name": name, "data": {}}, deliver_at=PAST, schedule=name)
    wait_until(
        lambda: site.outbox.count_documents({"data.name": name}), description=f"{name} is moved"
    )


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "FIRST_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(housekeeping, "EVERY_SECONDS", 1.0)


@pytest.mark.parametrize(
    ("how", "row", "says"),
    [
        ({"errorCode": 8000}, {"clusterTime": NOW}, "code 8000"),
        ({"closeConnection": True}, {"clusterTime": NOW}, "AutoReconnect"),
        ({"blockConnection": True, "blockTimeMS": 5_000}, {"clusterTime": NOW}, None),
        ({}, {"clusterTime": "none"}, "CheckpointRefused"),
    ],
    ids=["refused", "cut off", "slow", "unreadable"],
)
def test_what_is_due_goes_on_while_housekeeping_fails(
    lite_site: Site,
    caplog: pytest.LogCaptureFixture,
    how: dict[str, Any],
    row: dict[str, Any],
    says: str | None,
) -> None:
    """It is said once, tried again after ever longer waits, and done once it can be."""
    site = lite_site
    site.database[wire.CHECKPOINTS].insert_one({"partitionKey": NAME, **row})
    plan, old = site.database[wire.SCHEDULED], {"firedInto": NAME, "firedAt": PAST}
    caplog.set_level(logging.WARNING, "postroom")
    with failing(site, how) as database, moving(database):
        plan.insert_one(dict(old))
        for number in range(6):
            fire(site, f"Due{number}")
        said = [each for each in caplog.messages if "was fired long ago" in each]
        assert len(said) == (says is not None)
        assert says is None or says in said[0]
        assert plan.count_documents(old) == 1
        assert not any("could not be moved" in each for each in caplog.messages)
        site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"clusterTime": NOW}})
        site.mongodb.admin.command("configureFailPoint", "failCommand", mode="off")
        wait_until(lambda: not plan.count_documents(old), description="the old one is gone")
