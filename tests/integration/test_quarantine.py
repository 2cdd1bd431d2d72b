"""The quarantine: who comes first decides, and a row that is put back is sent once."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from bson import ObjectId
from pymongo.errors import PyMongoError

from postroom import wire
from postroom.store import quarantine as stored_quarantine
from postroom.store import quarantine_index
from postroom.store.moment import at_one_time
from postroom.store.quarantine import Quarantine, Quarantined
from postroom.store.values import DEFAULT_PARTITION
from postroom.topics import Topic
from tests.relays import relaying, saved
from tests.site import ids, row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.site import Site


@pytest.fixture
def quarantine(lite_site: Site) -> Quarantine:
    """Lend the quarantine of a site."""
    return Quarantine(lite_site.database, partition=DEFAULT_PARTITION)


def set_aside(site: Site, count: int) -> list[Any]:
    """Put rows into outbox and quarantine, and return their ids."""
    rows = [row(number) for number in range(count)]
    site.outbox.insert_many(rows)
    found = [each["_id"] for each in rows]
    Quarantine(site.database, partition=DEFAULT_PARTITION).store(
        Quarantined(row_id=row_id, position=n, reason="odd") for n, row_id in enumerate(found, 1)
    )
    return found


def aside(
    site: Site, count: int, *, topic: Topic | None = None, retried_at: datetime | None = None
) -> list[Any]:
    """Put entries into quarantine, without rows, and return their ids."""
    fields = {"topic": topic, "retriedAt": retried_at}
    entries = [
        {"_id": ObjectId(), "partitionKey": "default", "position": number, "reason": "odd"}
        | {name: value for name, value in fields.items() if value is not None}
        for number in range(count)
    ]
    site.database[wire.QUARANTINE].insert_many(entries)
    return [each["_id"] for each in entries]


@contextlib.contextmanager
def examined(site: Site) -> Iterator[list[int]]:
    """Tell how many documents each read of the block has looked at, once it is over."""
    documents: list[int] = []
    site.database.command("profile", 2)
    try:
        yield documents
    finally:
        site.database.command("profile", 0)
        reads = site.database["system.profile"].find({"docsExamined": {"$exists": True}})
        documents += [each["docsExamined"] for each in reads]


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls side by side, from one moment on, and return their results."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def entry(site: Site, row_id: Any) -> dict[str, Any]:
    """Return the stored entry of a row."""
    return site.database[wire.QUARANTINE].find_one({"_id": row_id}) or {}


def test_two_operators_retry_all_rows_at_once(lite_site: Site, quarantine: Quarantine) -> None:
    """Each row is put back once, and each operator is told what was their doing."""
    rows = set_aside(lite_site, 100)
    pipeline = [{"$match": {"operationType": "insert"}}]
    with lite_site.outbox.watch(pipeline, max_await_time_ms=200) as stream:
        done = at_once(*[lambda: [quarantine.retry(row_id) for row_id in rows]] * 3)
        again = []
        while change := stream.try_next():
            again.append(change["documentKey"]["_id"])
    assert sorted(again) == sorted(rows)
    assert sum(map(sum, done)) == len(rows)
    assert quarantine.count() == 0


def test_a_row_is_retried_or_discarded(lite_site: Site, quarantine: Quarantine) -> None:
    """One of the two; a row that is to be sent keeps the entry that saves it from pruning."""
    rows = set_aside(lite_site, 100)
    retried, discarded = at_once(
        lambda: sum(quarantine.retry(row_id) for row_id in rows),
        lambda: sum(quarantine.discard([row_id]) for row_id in reversed(rows)),
    )
    assert retried + discarded == len(rows)
    assert len(quarantine.among(rows)) == retried
    assert quarantine.discard(rows) == 0
    assert len(quarantine.among(rows)) == retried


def test_a_retry_is_done_once(lite_site: Site, quarantine: Quarantine) -> None:
    """Not again before the relay got it, nor for a row that never was in quarantine, or is gone."""
    first, gone = set_aside(lite_site, 2)
    assert [quarantine.retry(first) for _ in range(2)] == [True, False]
    assert quarantine.retry(lite_site.insert(1)[0]) is False
    lite_site.outbox.delete_one({"_id": gone})
    assert quarantine.retry(gone) is False
    assert [each.row_id for each in quarantine.entries()] == [gone]
    other = Quarantine(lite_site.database, partition=DEFAULT_PARTITION)
    assert other.retry(first) is False


@pytest.mark.timeout(60)
def test_a_retry_ends_in_time(
    lite_site: Site, quarantine: Quarantine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another transaction holds the entry all the time; asked again it is done."""
    monkeypatch.setattr(stored_quarantine, "WRITE_MS", 300)
    (row_id,) = set_aside(lite_site, 1)
    with lite_site.mongodb.start_session() as session, session.start_transaction():
        held = {"$set": {"reason": "held"}}
        entries = lite_site.database[wire.QUARANTINE]
        entries.update_one({"_id": row_id}, held, session=session)
        with pytest.raises(PyMongoError):
            quarantine.retry(row_id)
        session.abort_transaction()
    monkeypatch.undo()
    assert quarantine.retry(row_id)


def test_a_replay_leaves_a_retried_row_alone(lite_site: Site, quarantine: Quarantine) -> None:
    """It meets the row as it was; only under a new number it is poison again."""
    (row_id,) = set_aside(lite_site, 1)
    assert quarantine.retry(row_id)
    quarantine.store([Quarantined(row_id=row_id, position=1, reason="odd")])
    assert quarantine.entries() == []
    quarantine.store([Quarantined(row_id=row_id, position=7, reason="$still")])
    (found,) = quarantine.entries()
    assert (found.position, found.reason) == (7, "$still")
    assert found.quarantined_at == entry(lite_site, row_id)["quarantinedAt"]


def test_what_waits_for_a_topic_is_found_by_an_index(
    lite_site: Site, quarantine: Quarantine
) -> None:
    """Among thousands of rows that wait for other topics only those asked for are looked at."""
    quarantine_index.prepare(lite_site.database)
    away, held = Topic("persistent://a/b/away"), Topic("persistent://a/b/held")
    aside(lite_site, 5000, topic=away)
    aside(lite_site, 5, topic=held)
    aside(lite_site, 2000)
    with examined(lite_site) as documents:
        assert quarantine.awaited_topics() == [away, held]
        assert len(quarantine.awaiting(held, limit=500)) == 5
        assert not quarantine.is_empty()
    assert sum(documents) < 50


def test_more_rows_were_put_back_than_a_reply_holds(
    lite_site: Site, quarantine: Quarantine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are told, as they were at one time."""
    monkeypatch.setattr(stored_quarantine, "IDS_A_REPLY", 100)
    since = datetime.now(UTC) - timedelta(minutes=1)
    lite_site.insert(1)
    put_back = aside(lite_site, 2500, retried_at=datetime.now(UTC))
    found = at_one_time(lite_site.database, lambda moment: quarantine.retried_since(since, moment))
    assert sorted(found) == sorted(put_back)


@pytest.mark.pulsar
def test_a_row_that_is_retried_during_a_replay_is_sent_once(pulsar_site: Site) -> None:
    """Mended, put back and sent; the next term meets the old row first, and a retry finds none."""
    site, quarantine = pulsar_site, Quarantine(pulsar_site.database, partition=DEFAULT_PARTITION)
    plain, poison = site.subscribe(), row(0) | {"data": {"name": "Mended"}}
    with relaying(site):
        site.insert(1)
        before = saved(site, 1)
        site.outbox.insert_one(poison)
        wait_until(lambda: quarantine.count() == 1, description="the quarantine")
        site.outbox.update_one({"_id": poison["_id"]}, {"$set": {"data.data": {}}})
        assert quarantine.retry(poison["_id"])
        saved(site, 3)
    site.database[wire.CHECKPOINTS].update_one(
        {}, {"$set": {name: before[name] for name in ("resumeToken", "position", "lanes")}}
    )
    with relaying(site):
        site.insert(1)
        saved(site, 4)
        assert quarantine.count() == 0
        assert quarantine.retry(poison["_id"]) is False
        found = ids(site.receive(plain, 3))
    assert found[1] == str(poison["_id"])
    assert len(set(found)) == 3
    assert len(site.stored()) == 3
