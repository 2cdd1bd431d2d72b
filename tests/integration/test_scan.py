"""First starts, lost history and replaced collections: what is relayed from the collection."""

from __future__ import annotations

import itertools
import logging
import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from bson import Binary, ObjectId
from pymongo import MongoClient

from devstack.mongodb import MongoDB
from devstack.service import free_port
from postroom import wire
from postroom.relay.reading import pages, scan
from postroom.relay.reading.batch import BATCH_ROWS
from postroom.relay.reading.pages import Page, Pages
from postroom.relay.saving import retention
from postroom.relay.sending import known_ids
from postroom.store.quarantine import Quarantine, Quarantined
from postroom.store.values import DEFAULT_PARTITION
from tests.relays import relaying
from tests.site import Site, row
from tests.waiting import beside, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from devstack.brokers import Pulsar

pytestmark = pytest.mark.pulsar
LOST = {"_data": "82" + "0" * 60}


def stored(site: Site, count: int, *, seconds: float = 60) -> list[str]:
    """Wait until the topic has so many events, and return them."""
    wait_until(lambda: len(site.stored()) >= count, description=f"{count} events", seconds=seconds)
    return site.stored()


def scanned(site: Site) -> None:
    """Wait until no scan is noted in the checkpoint."""
    wait_until(
        lambda: "scan" not in site.checkpoint and "position" in site.checkpoint,
        description="the scan's end",
        seconds=60,
    )


def writing(
    site: Site, written: list[str], *, rows: int = 5, pause: float = 0.01
) -> AbstractContextManager[None]:
    """Insert rows in transactions all the while, some of them with ids from long ago."""

    def write(over: threading.Event) -> None:
        with MongoClient[Any](site.environment["POSTROOM_MONGODB_URI"]) as client:
            outbox = client[site.name][wire.OUTBOX]
            while not over.wait(pause):
                batch = [row(n) for n in range(rows)]
                if len(written) % 7 == 0:
                    # A slow clock, or a transaction that took long.
                    batch[0]["_id"] = ObjectId(
                        ObjectId.from_datetime(datetime.now(UTC) - timedelta(minutes=5)).binary[:4]
                        + uuid.uuid4().bytes[:8]
                    )
                with client.start_session() as session, session.start_transaction():
                    outbox.insert_many(batch, session=session)
                written.extend(str(each["_id"]) for each in batch)

    return beside(write)


def test_a_scan_goes_on_where_it_was_and_repeats_nothing(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its progress is in the checkpoint; terms that end in the middle begin none of it again."""
    monkeypatch.setattr(scan, "PHASE_SECONDS", 0.05)
    written = pulsar_site.insert(BATCH_ROWS * 15)
    started: list[int] = []
    read = pages.Pages.read

    def dying(self: pages.Pages, **where: Any) -> pages.Page:
        page = read(self, **where)
        if where["after"] is None:
            started.append(1)
        elif page.documents and len(deaths) < 4 and next(dice):
            # Not before something of its term is saved, which is not the reader's to say.
            wait_until(lambda: progress() != deaths[-1:], description="progress is saved")
            deaths.extend(progress())
            raise KeyError("a reader dies")
        return page

    def progress() -> list[Any]:
        return [pulsar_site.checkpoint[wire.CheckpointField.SCAN]]

    deaths: list[Any] = []
    dice = iter([False, False, True] * 100)
    monkeypatch.setattr(pages.Pages, "read", dying)
    with writing(pulsar_site, written), relaying(pulsar_site, wait=False) as relay:
        scanned(pulsar_site)
    with relaying(pulsar_site):
        found = stored(pulsar_site, len(written))
    assert sorted(found) == sorted(written)
    assert len(deaths) == 4
    assert len(started) < 4, "most terms went on"
    assert relay.status.counts.skipped < BATCH_ROWS * 12


def test_rows_of_others_by_the_hundred_thousand_hold_up_no_scan(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that would take too long is looked for in strides."""
    monkeypatch.setattr(pages, "PAGE_MS", 1)
    monkeypatch.setattr(pages, "STRIDE_ROWS", 500)
    written = pulsar_site.insert(3)
    pulsar_site.outbox.insert_many([row(n, partition="other") for n in range(30_000)])
    written += pulsar_site.insert(3)
    pulsar_site.outbox.insert_many([row(n, partition="other") for n in range(30_000)])
    with relaying(pulsar_site):
        assert stored(pulsar_site, 6) == written


def test_ids_of_every_kind_are_scanned_once_while_rows_are_written(pulsar_site: Site) -> None:
    """ObjectIds come last; what is committed meanwhile is neither lost nor sent twice."""
    kinds: list[Any] = [*range(300), *(f"s{n}" for n in range(300)), None, True]
    kinds += [{"a": n} for n in range(100)] + [Binary(bytes([n])) for n in range(100)]
    kinds += [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(100)]
    pulsar_site.outbox.insert_many([row(0) | {"_id": each} for each in kinds])
    written = pulsar_site.insert(500)
    with writing(pulsar_site, written), relaying(pulsar_site, wait=False):
        scanned(pulsar_site)
    with relaying(pulsar_site):
        found = stored(pulsar_site, len(kinds) + len(written))
    assert len(found) == len(set(found)) == len(kinds) + len(written)
    assert set(written) <= set(found)


def test_history_lost_in_the_middle_of_a_first_start_keeps_its_progress(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan goes on from where it was, less the margin, and leaves out what was sent."""
    monkeypatch.setattr(scan, "PHASE_SECONDS", 0.05)
    week = datetime.now(UTC) - timedelta(days=7)
    old = [
        row(n) | {"_id": ObjectId.from_datetime(week + timedelta(seconds=n))} for n in range(30_000)
    ]
    pulsar_site.outbox.insert_many(old)
    written = [str(each["_id"]) for each in old]
    checkpoints = pulsar_site.database[wire.CHECKPOINTS]
    with writing(pulsar_site, written), relaying(pulsar_site, wait=False):
        wait_until(
            lambda: (pulsar_site.checkpoint.get("position") or 0) > 5000, description="a part"
        )
    checkpoints.update_one({}, {"$set": {"resumeToken": LOST}})
    part = len(pulsar_site.stored())
    assert part < len(written)
    with writing(pulsar_site, written), relaying(pulsar_site, wait=False) as relay:
        scanned(pulsar_site)
    with relaying(pulsar_site):
        found = stored(pulsar_site, len(written))
    assert sorted(found) == sorted(written)
    assert relay.status.counts.terms


def test_lost_history_sends_nothing_that_people_are_to_decide_on(pulsar_site: Site) -> None:
    """What was set aside or discarded stays so, since later rows are sent; a retried row goes."""
    first = pulsar_site.insert(10)
    with relaying(pulsar_site):
        stored(pulsar_site, len(first))
        wait_until(lambda: pulsar_site.checkpoint.get("position") == 10, description="10 rows")
    quarantine = Quarantine(pulsar_site.database, partition=DEFAULT_PARTITION)
    aside = [ObjectId(each) for each in pulsar_site.insert(3)]
    quarantine.store(
        Quarantined(row_id=row_id, position=n, reason="out of order")
        for n, row_id in enumerate(aside, 8)
    )
    waits, discarded, retried = aside
    assert quarantine.discard([discarded]) == 1
    assert quarantine.retry(retried)
    later = pulsar_site.insert(1)
    pulsar_site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"resumeToken": LOST}})
    with relaying(pulsar_site):
        scanned(pulsar_site)
        found = stored(pulsar_site, 12)
    assert sorted(found) == sorted([*first, str(retried), *later])
    assert [each.row_id for each in quarantine.entries()] == [waits]


def test_a_short_oplog_under_a_flood_ends_and_loses_nothing(
    new_short_mongodb: MongoDB, pulsar_server: Pulsar, environment: dict[str, str], tmp_path: Path
) -> None:
    """An oplog that rolls over while the relay is away, and goes on to roll over while it scans."""
    site = Site(
        {
            **environment,
            "POSTROOM_MONGODB_URI": new_short_mongodb.url,
            "POSTROOM_PULSAR_URL": pulsar_server.url,
        },
        tmp_path,
    )
    written = site.insert(1000)
    try:
        with relaying(site):
            stored(site, 1000)
        with flooding(site):
            written += site.insert(30_000)
            with writing(site, written, rows=50), relaying(site, wait=False):
                wait_until(
                    lambda: "scan" in site.checkpoint or len(site.stored()) > 30_000,
                    description="the history is lost",
                )
                scanned(site)
        with relaying(site):
            found = stored(site, len(written))
        assert sorted(found) == sorted(written)
    finally:
        site.close()


@pytest.fixture
def new_short_mongodb(tmp_path: Path) -> Iterator[MongoDB]:
    """Lend a MongoDB whose oplog holds a megabyte."""
    server = MongoDB(tmp_path / "short", port=free_port(), oplog_mb=1)
    server.start()
    server.wait_ready()
    yield server
    server.stop()


def flooding(site: Site) -> AbstractContextManager[None]:
    """Fill the oplog with what is nothing to the relay."""

    def flood(over: threading.Event) -> None:
        with MongoClient[Any](site.environment["POSTROOM_MONGODB_URI"]) as client:
            while not over.wait(0.1):
                client[site.name]["other"].insert_many([{"x": "x" * 20_000} for _ in range(10)])

    return beside(flood)


# --- collections that are replaced -----------------------------------------------------------


def put_aside(site: Site, rows: list[dict[str, Any]]) -> list[str]:
    """Insert rows into another collection, and return their ids."""
    site.database["elsewhere"].insert_many(rows)
    return [str(each["_id"]) for each in rows]


@pytest.mark.parametrize("drop_target", [True, False])
@pytest.mark.parametrize("running", [True, False])
def test_rows_that_come_by_rename_are_sent_and_never_pruned_unsent(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch, *, drop_target: bool, running: bool
) -> None:
    """Whatever their ids say, whether the relay runs or is away; what was sent is left out."""
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.2)
    monkeypatch.setattr(scan, "SETTLING_SECONDS", 1.0)
    ago = datetime.now(UTC) - timedelta(days=3)
    with relaying(pulsar_site, retention_days=1):
        written = pulsar_site.insert(20)
        stored(pulsar_site, 20)
        scanned(pulsar_site)
        if running:
            came = replace_outbox(pulsar_site, ago, drop_target=drop_target)
            found = stored(pulsar_site, 20 + len(came))
    if not running:
        came = replace_outbox(pulsar_site, ago, drop_target=drop_target)
    with relaying(pulsar_site, retention_days=1) as relay:
        more = pulsar_site.insert(3)
        found = stored(pulsar_site, 20 + len(came) + 3)
        scanned(pulsar_site)
        wait_until(lambda: relay.status.counts.pruned >= 5, description="the old ones are pruned")
    assert sorted(found) == sorted([*written, *came, *more])
    assert pulsar_site.outbox.count_documents({}) == 15 + 10 + 3


def replace_outbox(site: Site, ago: datetime, *, drop_target: bool) -> list[str]:
    """Replace the outbox by a collection with rows that were sent, and 15 that were not."""
    sent = list(site.outbox.find().limit(15))
    old = [row(n) | {"_id": ObjectId.from_datetime(ago + timedelta(minutes=n))} for n in range(5)]
    came = put_aside(site, [*old, *(row(n) for n in range(10))])
    site.database["elsewhere"].insert_many(sent)
    if not drop_target:
        site.outbox.drop()
    site.database["elsewhere"].rename(wire.OUTBOX, dropTarget=drop_target)
    return came


def test_a_collection_that_is_restored_sends_only_what_was_not_sent(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As mongorestore --drop does it: dropped, made again, filled, and a little more written.

    What the topic had is known of far more rows than memory is given for.
    """
    monkeypatch.setattr(known_ids, "MOST_IN_MEMORY", 100)
    monkeypatch.setattr(scan, "LATE", timedelta(seconds=-60))
    monkeypatch.setattr(scan, "SETTLING_SECONDS", 3.0)
    with relaying(pulsar_site):
        written = pulsar_site.insert(3000)
        stored(pulsar_site, 3000)
        dump = list(pulsar_site.outbox.find())
        unsent = [row(n) for n in range(10)]
        pulsar_site.outbox.drop()
        for start in range(0, 3000, 500):
            pulsar_site.outbox.insert_many(dump[start : start + 500])
            threading.Event().wait(0.3)
        pulsar_site.outbox.insert_many(unsent)
        found = stored(pulsar_site, 3010)
        scanned(pulsar_site)
        more = pulsar_site.insert(2)
        found = stored(pulsar_site, 3012)
    assert sorted(found) == sorted([*written, *(str(each["_id"]) for each in unsent), *more])


def test_collections_that_come_and_go_while_nobody_relays_are_all_relayed(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each was the outbox for a while, and what was written into it was committed."""
    monkeypatch.setattr(scan, "SETTLING_SECONDS", 0.5)
    with relaying(pulsar_site):
        written = pulsar_site.insert(2)
        stored(pulsar_site, 2)
    written += pulsar_site.insert(2)
    pulsar_site.outbox.rename("first")
    written += pulsar_site.insert(2)
    pulsar_site.outbox.drop()
    written += pulsar_site.insert(2)
    written += put_aside(pulsar_site, [row(n) for n in range(2)])
    pulsar_site.database["elsewhere"].rename(wire.OUTBOX, dropTarget=True)
    written += pulsar_site.insert(2)
    with relaying(pulsar_site, wait=False):
        found = stored(pulsar_site, len(written))
        scanned(pulsar_site)
        found = pulsar_site.stored()
    assert sorted(found) == sorted(written)


@pytest.mark.parametrize("running", [True, False])
def test_a_checkpoint_that_is_removed_has_nothing_sent_twice(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch, *, running: bool
) -> None:
    """By hand, or in a database that was restored without it: the topics tell what was sent.

    Also where terms end in the middle of it, before and behind the first row for a topic.
    """
    monkeypatch.setattr(pages, "BATCH_ROWS", 50)
    site, second = pulsar_site, f"{pulsar_site.topic}-second"
    with relaying(site, topics={"B": second}):
        first, others = site.insert(200), site.insert(100, name="B")
        wait_until(lambda: len(site.stored(second)) == 100, description="all are sent")
        deaths = dying_behind(monkeypatch, pages=[2, 5])
        if running:
            site.database[wire.CHECKPOINTS].drop()
            first += site.insert(20)
            wait_until(lambda: len(deaths) == 2, description="terms that end in the middle")
            stored(site, 220)
    if not running:
        site.database[wire.CHECKPOINTS].delete_many({})
    with relaying(site, topics={"B": second}):
        first += site.insert(20)
        stored(site, len(first))
        others += site.insert(20, name="B")
        wait_until(lambda: len(site.stored(second)) >= 120, description="all are sent")
    assert len(deaths) == 2
    assert site.stored() == first
    assert site.stored(second) == others


def dying_behind(monkeypatch: pytest.MonkeyPatch, *, pages: list[int]) -> list[int]:
    """Have the reader die once behind each of these numbers of pages; return how often it did."""
    read, count = Pages.read, itertools.count()
    deaths: list[int] = []

    def dying(self: Pages, **where: Any) -> Page:
        if len(deaths) < len(pages) and next(count) == pages[len(deaths)]:
            deaths.append(1)
            raise KeyError("a reader dies")
        return read(self, **where)

    monkeypatch.setattr(Pages, "read", dying)
    return deaths


def test_a_collection_that_is_replaced_while_history_is_lost_is_scanned_whole(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody saw the rename: the checkpoint knows which collection it speaks of."""
    monkeypatch.setattr(scan, "SETTLING_SECONDS", 0.5)
    with relaying(pulsar_site, idle_checkpoint_seconds=0.2):
        written = pulsar_site.insert(5)
        stored(pulsar_site, 5)
        wait_until(lambda: "collection" in pulsar_site.checkpoint, description="its UUID")
    ago = datetime.now(UTC) - timedelta(days=3)
    came = replace_outbox(pulsar_site, ago, drop_target=True)
    pulsar_site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"resumeToken": LOST}})
    with relaying(pulsar_site, wait=False):
        found = stored(pulsar_site, 5 + len(came))
        scanned(pulsar_site)
        found = pulsar_site.stored()
    assert sorted(found) == sorted([*written, *came])


def test_a_row_that_is_committed_late_is_not_pruned_unsent(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is older than the retention as it comes, and the relay has not seen it yet."""
    with relaying(pulsar_site, retention_days=1, idle_checkpoint_seconds=0.2):
        written = pulsar_site.insert(1)
        stored(pulsar_site, 1)
        wait_until(lambda: "collection" in pulsar_site.checkpoint, description="its UUID")
    late = row(0) | {"_id": ObjectId.from_datetime(datetime.now(UTC) - timedelta(days=3))}
    pulsar_site.outbox.insert_one(late)
    pruning = retention.Retention(
        pulsar_site.database,
        Quarantine(pulsar_site.database, partition=DEFAULT_PARTITION),
        partition=DEFAULT_PARTITION,
        age=timedelta(days=1),
        margin=timedelta(minutes=15),
        pruned=lambda _: None,
    )
    assert pruning.prune() == 0
    with relaying(pulsar_site, idle_checkpoint_seconds=0.2):
        assert stored(pulsar_site, 2) == [*written, str(late["_id"])]
        wait_until(lambda: pruning.prune() == 1, description="it is pruned")


def test_progress_is_said(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """How many rows so far and how fast, where the scan begins, and that it has ended."""
    monkeypatch.setattr(scan, "REMIND_SECONDS", 0.01)
    caplog.set_level(logging.INFO)
    pulsar_site.insert(BATCH_ROWS * 3)
    with relaying(pulsar_site):
        stored(pulsar_site, BATCH_ROWS * 3)
    assert "is relayed from the collection first" in caplog.text
    assert "rows so far" in caplog.text
    assert "has read its last row" in caplog.text


UNFIT: dict[str, dict[str, Any]] = {
    "capped": {"capped": True, "size": 1 << 20},
    "a time series": {"timeseries": {"timeField": "occurredAt"}},
    "a view": {"viewOn": "other", "pipeline": []},
    "a collection with a collation": {"collation": {"locale": "en", "strength": 2}},
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_is_no_plain_collection_is_named_and_nothing_is_relayed(
    lite_site: Site, kind: str
) -> None:
    """By a collation two outbox partitions were one; the others stood still behind a bare code."""
    lite_site.database.create_collection(wire.OUTBOX, **UNFIT[kind])
    with relaying(lite_site, wait=False) as relay:
        wait_until(
            lambda: f"is {kind}: no event can be relayed" in (relay.status.reason or ""),
            description="the sentence",
        )


def test_a_backup_on_another_server_is_no_news(
    pulsar_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """A MongoDB set up anew takes the old token, and shows what was restored as written since."""
    site = pulsar_site
    with site.outbox.watch() as stream:
        stream.try_next()
        before = stream.resume_token
    with relaying(site):
        written = site.insert(3)
        assert stored(site, 3) == written
        wait_until(lambda: "collection" in site.checkpoint, description="it is known", seconds=30)
        wait_until(lambda: site.checkpoint["position"] == 3, description="a checkpoint")
    # As that server has it: the exchange stands in no oplog of its own, and all rows do.
    site.database[wire.CHECKPOINTS].update_one(
        {},
        {"$set": {"resumeToken": before, "collection": Binary.from_uuid(uuid.uuid4())}},
    )
    with relaying(site):
        scanned(site)
        written += site.insert(1)
        assert stored(site, 4) == written
    assert "it was restored from a backup" in caplog.text
    assert site.checkpoint["collection"] == next(
        each["info"]["uuid"]
        for each in site.database.list_collections(filter={"name": wire.OUTBOX})
    )
