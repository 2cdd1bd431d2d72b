"""`outbox forget`: what MongoDB keeps of one key's events goes, and no event is lost by that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from postroom import wire
from postroom.store.inbox_rows import RowId
from postroom.store.quarantine import Quarantine, Quarantined
from postroom.store.values import DEFAULT_PARTITION, Position
from postroom.topics import Topic
from tests.acceptance.test_operators_commands import values
from tests.commands import run
from tests.relays import relaying
from tests.site import row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from bson import ObjectId

    from tests.site import Site

OLD = datetime.now(UTC) - timedelta(hours=2)


def insert(site: Site, count: int, **fields: Any) -> list[ObjectId]:
    """Insert rows, and return their ids."""
    rows = [{**row(number), **fields} for number in range(count)]
    site.outbox.insert_many(rows)
    return [each["_id"] for each in rows]


def relay_all(site: Site) -> None:
    """Have all rows relayed, and the checkpoint behind them."""
    with relaying(site, idle_checkpoint_seconds=0.1):
        now = site.mongodb.admin.command("ping")["operationTime"]
        wait_until(
            lambda: site.checkpoint["clusterTime"] > now, description="a checkpoint behind all"
        )


def remember(site: Site, row_id: ObjectId, at: datetime = OLD, handler: str = "shop.note") -> None:
    """Note in the inbox that an event was handled."""
    stored = RowId(subscription="test", handler=handler, event_id=str(row_id)).stored()
    site.database[wire.INBOX].insert_one({"_id": stored, "name": "Counted", "handledAt": at})


def set_aside(site: Site, row_id: ObjectId, *, topic: str | None = None) -> None:
    """Note a row in quarantine."""
    at = None if topic is None else Topic(topic)
    entry = Quarantined(row_id=row_id, position=Position(1), reason="bad", topic=at)
    Quarantine(site.database, partition=DEFAULT_PARTITION).store([entry])


def forget(site: Site, *words: str, code: int = 0, text: str = "") -> dict[str, Any]:
    """Run the command."""
    (found,) = values(
        run(site, "outbox", "forget", "--json", "--yes", *words, code=code, text=text)
    )
    return dict(found)


def test_all_that_is_kept_of_a_key_is_deleted_and_nothing_else(lite_site: Site) -> None:
    """Rows, what is scheduled, quarantine and inbox; others' stay, and the log has no key."""
    site = lite_site
    mine, others = insert(site, 3, key="p1"), insert(site, 2, key="p2")
    number = insert(site, 1, key=17)
    relay_all(site)
    for each in (mine[0], others[0]):
        remember(site, each)
        remember(site, each, handler="shop.other")
    set_aside(site, mine[1])
    site.database[wire.SCHEDULED].insert_many(
        [{"key": key, "data": {"name": "Later", "data": {}}} for key in ("p1", "p2")]
    )
    would = forget(site, "--key", "p1", "--dry-run")
    assert site.outbox.count_documents({}) == 6
    done = forget(site, "--key", "-", text="p1\n")
    assert {**would, "done": True} == done
    counts = {what: done[what] for what in ("rows", "scheduled", "quarantined", "inbox", "left")}
    assert counts == {"rows": 3, "scheduled": 1, "quarantined": 1, "inbox": 2, "left": {}}
    assert [each["_id"] for each in site.outbox.find().sort("_id")] == [*others, *number]
    assert site.database[wire.INBOX].count_documents({}) == 2
    assert site.database[wire.QUARANTINE].count_documents({}) == 0
    assert [each["key"] for each in site.database[wire.SCHEDULED].find()] == ["p2"]
    assert any(site.topic in sentence for sentence in done["beyond"])
    assert forget(site, "--key", "17")["rows"] == 1
    (again, first) = values(run(site, "outbox", "actions", "--json"))
    assert (again["what"], first["count"], first["where"]) == ("forget", 7, {})
    assert "p1" not in str(list(site.database[wire.ACTIONS].find()))


def test_an_event_that_is_to_be_sent_is_never_lost(lite_site: Site) -> None:
    """It is left, by a reason, and the command says so by its code; once it is relayed it goes."""
    site = lite_site
    insert(site, 1, key="p1")
    assert forget(site, "--key", "p1", code=1)["rows"] == 0  # before the first relay
    relay_all(site)
    waiting, redriven, new, begun = insert(site, 4, key="p1")
    relay_all(site)
    insert(site, 1, key="p1")  # while no relay runs
    set_aside(site, waiting, topic="persistent://public/default/shut")
    set_aside(site, redriven)
    assert Quarantine(site.database, partition=DEFAULT_PARTITION).retry(redriven)
    remember(site, new, at=datetime.now(UTC))
    stored = RowId(subscription="test", handler="shop.note", event_id=str(begun)).stored()
    site.database[wire.BEGUN].insert_one({"_id": stored, "begunAt": OLD})
    done = forget(site, "--key", "p1", code=1)
    assert done["rows"] == 1
    assert sorted(done["left"].values()) == [1, 2, 2]
    plain = site.subscribe()
    relay_all(site)
    # The one that was put back and the one whose topic can be opened once more.
    assert len(site.receive(plain, 8)) == 6 + 2
    assert forget(site, "--key", "p1", code=1)["rows"] == 2


def test_rows_without_a_key_are_found_by_what_keys_them(lite_site: Site) -> None:
    """As the relay would key them: by install(key=…)'s field."""
    site = lite_site
    insert(site, 2)
    (other,) = insert(site, 1, key="own")
    relay_all(site)
    assert forget(site, "--key", "1", "--dry-run")["rows"] == 0
    found = run(site, "outbox", "forget", "--key", "1", "--yes", "--json", key="number")
    assert values(found)[0]["rows"] == 1
    assert site.outbox.count_documents({"_id": other}) == 1


@pytest.mark.parametrize(("key", "code"), [("", 1), ("a\0b", 1), ("\ud800", 2)], ids=ascii)
def test_what_can_be_no_key_is_refused(lite_site: Site, key: str, code: int) -> None:
    """By one sentence; what is no text at all is no option's value either."""
    done = run(lite_site, "outbox", "forget", "--yes", "--key", key, code=code)
    assert "Traceback" not in done.stderr
