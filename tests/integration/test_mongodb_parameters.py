"""What an administrator may have turned in MongoDB: the relay does what it does anywhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from bson import ObjectId

from devstack.mongodb import MongoDB
from devstack.service import free_port
from postroom import wire
from postroom.relay.saving.retention import Retention
from postroom.store.quarantine import Quarantine
from postroom.store.values import DEFAULT_PARTITION
from tests.conftest import running
from tests.integration.test_scan import LOST, scanned, stored
from tests.relays import relaying
from tests.site import row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.site import Site

pytestmark = pytest.mark.pulsar
LONG_AGO = datetime.now(UTC) - timedelta(days=3)
USUAL = {
    "notablescan": False,
    "transactionLifetimeLimitSeconds": 60,
    "internalQueryMaxBlockingSortMemoryUsageBytes": 100 << 20,
    "minSnapshotHistoryWindowInSeconds": 300,
    "internalQueryExecYieldIterations": 1000,
}
TURNED: list[dict[str, Any]] = [
    {"notablescan": True},
    {"transactionLifetimeLimitSeconds": 1, "minSnapshotHistoryWindowInSeconds": 0},
    {"internalQueryMaxBlockingSortMemoryUsageBytes": 1000},
    {"internalQueryExecYieldIterations": 1},
]


@pytest.fixture(scope="module")
def turned_mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoDB]:
    """Lend a MongoDB without test commands, as clusters have it, to be turned."""
    folder, none = tmp_path_factory.mktemp("turned"), {"enableTestCommands": 0}
    yield from running(MongoDB(folder, port=free_port(), parameters=none))


@pytest.fixture(params=TURNED, ids=lambda turned: next(iter(turned)))
def turned_site(
    request: pytest.FixtureRequest, turned_mongodb: MongoDB, site_on: Callable[[str], Site]
) -> Site:
    """Lend a site on that MongoDB."""
    found = site_on(turned_mongodb.url)
    for name, value in {**USUAL, **request.param}.items():
        found.mongodb.admin.command("setParameter", 1, **{name: value})
    return found


def old_row(number: int) -> dict[str, Any]:
    """Return a row with an id from days ago."""
    made = ObjectId.from_datetime(LONG_AGO).binary[:4] + ObjectId().binary[4:]
    return row(number) | {"_id": ObjectId(made)}


def test_rows_are_scanned_streamed_pruned_put_back_and_found_after_lost_history(
    turned_site: Site,
) -> None:
    """Each is sent once."""
    site = turned_site
    quarantine = Quarantine(site.database, partition=DEFAULT_PARTITION)
    pruning = Retention(
        site.database,
        quarantine,
        partition=DEFAULT_PARTITION,
        age=timedelta(days=1),
        margin=timedelta(minutes=15),
        pruned=lambda _: None,
    )
    written = site.insert(3000)
    old, poison = [old_row(number) for number in range(5)], row(0) | {"data": {"name": "Mended"}}
    with relaying(site, wait=False, retention_days=1, idle_checkpoint_seconds=0.2):
        stored(site, 3000)
        site.outbox.insert_many(old)
        stored(site, 3005)
        wait_until(lambda: "collection" in site.checkpoint, description="its UUID")
        wait_until(lambda: pruning.prune() == 5, description="they are pruned")
        site.outbox.insert_one(poison)
        wait_until(lambda: quarantine.count() == 1, description="the quarantine")
    site.outbox.update_one({"_id": poison["_id"]}, {"$set": {"data.data": {}}})
    assert quarantine.retry(poison["_id"])
    site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"resumeToken": LOST}})
    with relaying(site, wait=False):
        scanned(site)
        found = stored(site, 3006)
    assert sorted(found) == sorted([*written, *(str(each["_id"]) for each in [*old, poison])])
