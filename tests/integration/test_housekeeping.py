"""Housekeeping of scheduled events: what fails there holds up nothing that is due."""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from bson import ObjectId, Timestamp
from pymongo import MongoClient

from postroom import Outbox, wire
from postroom.partitioning import Partitioning
from postroom.relay import housekeeping
from postroom.relay.mover import Mover
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    from devstack.replica_set import ReplicaSet

PAST = datetime(2020, 1, 1, tzinfo=UTC)
NOW = Timestamp(datetime.now(UTC), 1)
NAME = Partitioning().names[0]


@pytest.fixture
def database(replica_set: ReplicaSet) -> Iterator[Database[Any]]:
    """Lend a database of a client of its own, for whom commands may fail."""
    name = f"housekeeping{ObjectId()}"
    with MongoClient[dict[str, Any]](replica_set.url, appname=name, tz_aware=True) as client:
        yield client[name]
        set_failing(replica_set, "off")
        client.drop_database(name)


def set_failing(replica_set: ReplicaSet, mode: str, **data: Any) -> None:
    """Have the primary fail commands, or do so no longer."""
    with MongoClient[Any](replica_set.primary().direct_url) as client:
        client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)


@contextlib.contextmanager
def moving(database: Database[Any]) -> Iterator[None]:
    """Run a mover without its relay."""
    mover = Mover(database, partition=NAME, margin=timedelta(hours=1), tell=lambda _: None)
    mover.start()
    try:
        yield
    finally:
        mover.stop()


def fire(database: Database[Any], name: str) -> None:
    """Have an event that is due be moved."""
    Outbox(database).publish({"name": name, "data": {}}, deliver_at=PAST, schedule=name)
    outbox = database[wire.OUTBOX]
    wait_until(lambda: outbox.count_documents({"data.name": name}), description=f"{name} is moved")


def said_of(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    """Return what was said of something."""
    return [each for each in caplog.messages if what in each]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "FIRST_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(housekeeping, "EVERY_SECONDS", 1.0)


SLOW = {"blockConnection": True, "blockTimeMS": 5_000}


class Failure(NamedTuple):
    """How deletions fail, or what the checkpoint says that cannot be read; and what is said."""

    how: dict[str, Any]
    says: str
    cluster_time: Any = NOW
    tell_after_seconds: float = 600.0


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(Failure({"errorCode": 8000}, "code 8000"), id="refused"),
        pytest.param(Failure({"closeConnection": True}, "AutoReconnect"), id="cut off"),
        pytest.param(Failure(SLOW, ""), id="slow"),
        pytest.param(
            Failure(SLOW, "in every try for 0.05 minutes", tell_after_seconds=3.0),
            id="slow for long",
        ),
        pytest.param(Failure({}, "cannot be read", "none"), id="unreadable"),
    ],
)
def test_what_is_due_goes_on_while_housekeeping_fails(
    replica_set: ReplicaSet,
    database: Database[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    failure: Failure,
) -> None:
    """It is said once, tried again after ever longer waits, and done once it can be.

    Of what only takes too long it is said where it does so for long.
    """
    monkeypatch.setattr(housekeeping, "TELL_AFTER_SECONDS", failure.tell_after_seconds)
    checkpoints, moves = database[wire.CHECKPOINTS], database[wire.FIRED]
    checkpoints.insert_one({"partitionKey": NAME, "clusterTime": failure.cluster_time})
    moves.insert_one({"firedInto": NAME, "firedAt": PAST})
    caplog.set_level(logging.INFO, "postroom")
    if failure.how:
        where = {"namespace": f"{database.name}.{moves.name}", "appName": database.name}
        set_failing(replica_set, "alwaysOn", failCommands=["delete"], **where, **failure.how)
    with moving(database):
        for number in range(6):
            fire(database, f"Due{number}")
        if failure.says:
            wait_until(lambda: said_of(caplog, "was fired long ago"), description="it is said")
        said = said_of(caplog, "was fired long ago")
        assert len(said) == bool(failure.says)
        assert failure.says in "".join(said)
        assert moves.count_documents({"firedInto": NAME, "firedAt": PAST}) == 1
        assert not any("could not be moved" in each for each in caplog.messages)
        set_failing(replica_set, "off")
        checkpoints.update_one({}, {"$set": {"clusterTime": NOW}})
        wait_until(
            lambda: not moves.count_documents({"firedInto": NAME, "firedAt": PAST}),
            description="what was fired long ago is gone",
        )
        if failure.says:
            wait_until(lambda: said_of(caplog, "come to its end"), description="its end is said")
    assert len(said_of(caplog, "come to its end")) == bool(failure.says)
