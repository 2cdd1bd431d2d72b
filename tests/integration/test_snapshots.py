"""A MongoDB that keeps no snapshots, or for a second: what reads at one time ends all the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from bson import ObjectId, Timestamp
from pymongo import MongoClient

from devstack.mongodb import MongoDB
from devstack.service import free_port
from postroom import wire
from postroom.operations import actions, forgetting
from postroom.operations.wiring import Wiring
from postroom.relay.reading import scan
from postroom.relay.reading.batch import BATCH_ROWS
from postroom.relay.saving.retention import Retention
from postroom.routing import Routing
from postroom.store import relayed
from postroom.store.moment import Moment, SnapshotGone, at_one_time
from postroom.store.quarantine import Quarantine, Quarantined
from postroom.store.values import DEFAULT_PARTITION
from tests.conftest import running
from tests.integration.test_scan import LOST, scanned, stored, writing
from tests.relays import relaying
from tests.site import Site, row
from tests.waiting import beside, wait_until

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

pytestmark = pytest.mark.pulsar
LONG_AGO = datetime.now(UTC) - timedelta(days=3)


@pytest.fixture(scope="module")
def forgetful_mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoDB]:
    """Lend a MongoDB of which each test says for how long it keeps snapshots."""
    server = MongoDB(
        tmp_path_factory.mktemp("forgetful"), port=free_port(), parameters={"enableTestCommands": 1}
    )
    yield from running(server)


@pytest.fixture(params=[0, 1])
def forgetful_site(
    request: pytest.FixtureRequest,
    forgetful_mongodb: MongoDB,
    site_on: Callable[[str], Site],
) -> Site:
    """Lend a site on that MongoDB, which keeps snapshots for so many seconds."""
    found = site_on(forgetful_mongodb.url)
    found.mongodb.admin.command("setParameter", 1, minSnapshotHistoryWindowInSeconds=request.param)
    return found


def flooding(site: Site) -> AbstractContextManager[None]:
    """Write without a pause what is nothing to the relay: what was is gone at once."""

    def flood(over: threading.Event) -> None:
        with MongoClient[Any](site.environment["POSTROOM_MONGODB_URI"]) as client:
            while not over.is_set():
                client[site.name]["other"].insert_one({})

    return beside(flood)


def old_row(number: int) -> dict[str, Any]:
    """Return a row with an id from days ago."""
    made = ObjectId.from_datetime(LONG_AGO).binary[:4] + ObjectId().binary[4:]
    return row(number) | {"_id": ObjectId(made)}


def test_a_scan_outlasts_every_snapshot_while_rows_are_written(
    forgetful_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Phases that are longer than the snapshots last: each row once, old ones in their order."""
    monkeypatch.setattr(scan, "PHASE_SECONDS", 5.0)
    before = sorted(forgetful_site.insert(BATCH_ROWS * 20 + 1))
    written: list[str] = []
    with (
        flooding(forgetful_site),
        writing(forgetful_site, written),
        relaying(forgetful_site, wait=False),
    ):
        scanned(forgetful_site)
    with relaying(forgetful_site):
        found = stored(forgetful_site, len(before) + len(written))
    assert sorted(found) == sorted([*before, *written])
    old = set(before)
    assert [each for each in found if each in old] == before


def test_what_was_put_back_is_sent_once_after_lost_history(forgetful_site: Site) -> None:
    """By the first term, whose scan does not reach back to it; what is put back meanwhile, too."""
    site = forgetful_site
    first = site.insert(10)
    with relaying(site):
        stored(site, len(first))
        wait_until(lambda: site.checkpoint.get("position") == len(first), description="10 rows")
    quarantine = Quarantine(site.database, partition=DEFAULT_PARTITION)
    aside = [old_row(number) for number in range(400)]
    site.outbox.insert_many(aside)
    quarantine.store(
        Quarantined(row_id=each["_id"], position=n, reason="odd") for n, each in enumerate(aside)
    )
    early, late = aside[:200], aside[200:]
    assert all(quarantine.retry(each["_id"]) for each in early)
    site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"resumeToken": LOST}})
    with flooding(site), relaying(site, wait=False) as relay:
        assert all(quarantine.retry(each["_id"]) for each in late)
        scanned(site)
        found = stored(site, len(first) + len(aside))
    assert sorted(found) == sorted([*first, *(str(each["_id"]) for each in aside)])
    assert relay.status.counts.terms <= 3, "one that loses the history, and one that goes on"


def test_what_was_relayed_is_pruned_and_what_was_not_is_kept(
    forgetful_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB cannot tell what was there at the checkpoint's time; the relay comes past now."""
    monkeypatch.setattr(relayed, "PATIENCE_SECONDS", 3.0)
    site = forgetful_site
    rows = [old_row(number) for number in range(3)]
    pruning = Retention(
        site.database,
        Quarantine(site.database, partition=DEFAULT_PARTITION),
        partition=DEFAULT_PARTITION,
        age=timedelta(days=1),
        margin=timedelta(minutes=15),
        pruned=lambda _: None,
    )
    with flooding(site):
        with relaying(site, idle_checkpoint_seconds=0.2):
            site.outbox.insert_many(rows[:2])
            stored(site, 2)
            wait_until(lambda: "collection" in site.checkpoint, description="its UUID")
            wait_until(lambda: pruning.prune() == 2, description="they are pruned")
        site.outbox.insert_one(rows[2])
        assert pruning.prune() == 0, "nobody relays"
        with relaying(site, idle_checkpoint_seconds=0.2):
            wait_until(lambda: pruning.prune() == 1, description="it is pruned")
    assert site.stored() == [str(each["_id"]) for each in rows]


def test_a_key_is_forgotten(forgetful_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was relayed of it is deleted; while nobody relays, what came since is left."""
    monkeypatch.setattr(relayed, "PATIENCE_SECONDS", 3.0)
    site = forgetful_site
    wiring = Wiring(
        routing=Routing(default=site.topic, topics={}, key=None),
        settings=site.settings(),
        consume={},
    )
    actor = actions.Actor(who="operator", by="tests")
    with flooding(site):
        with relaying(site, idle_checkpoint_seconds=0.2):
            site.outbox.insert_many([row(n) | {"key": "k"} for n in range(2)])
            stored(site, 2)
            wait_until(lambda: "collection" in site.checkpoint, description="its UUID")
            assert forgetting.forget(site.database, wiring, "k", actor=actor).rows == 2
        site.outbox.insert_one(row(0) | {"key": "k"})
        kept = forgetting.forget(site.database, wiring, "k", actor=actor)
    assert (kept.rows, kept.left[forgetting.NOT_RELAYED]) == (0, 1)
    assert site.outbox.count_documents({}) == 1


def is_gone(site: Site, time: Timestamp) -> bool:
    """Say whether the server cannot show any more what was at a time."""
    try:
        Moment(site.database, time).find({"find": wire.OUTBOX, "filter": {}})
    except SnapshotGone:
        return True
    return False


def test_what_is_read_at_one_time_lasts_until_it_is_read(forgetful_site: Site) -> None:
    """However much is written meanwhile, and a time that was is gone."""
    site = forgetful_site
    site.insert(1000)
    times = []

    def read(moment: Moment) -> list[int]:
        times.append(moment.time)
        counts = []
        for _ in range(3):
            found = moment.find({"find": wire.OUTBOX, "filter": {}, "batchSize": 10_000})
            counts.append(len(found))
            site.insert(10)
            wait_until(lambda: is_gone(site, times[-1]), description="that time is gone")
        return counts

    with flooding(site):
        assert len(set(at_one_time(site.database, read))) == 1
    assert len(times) == 2, "a transaction has the server keep it"
