"""`celery -A tasks outbox import`: rows of a hand-made polling outbox, each once and in order."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any

import bson
import pytest
from bson import ObjectId
from bson.raw_bson import RawBSONDocument

from postroom import wire
from postroom.errors import ConfigurationError
from postroom.operations import importing
from postroom.operations.actions import operator
from postroom.operations.importing import OldOutbox
from postroom.operations.wiring import Wiring
from postroom.routing import Routing
from tests.acceptance.test_operators_commands import values
from tests.commands import run
from tests.pages import DOCS, blocks

if TYPE_CHECKING:
    from tests.site import Site

AT = datetime(2026, 5, 1, tzinfo=UTC)
IMPORT = ("outbox", "import", "legacy")


def wiring(site: Site) -> Wiring:
    """Return how an application is installed that keys by a field."""
    settings = site.settings()
    routing = Routing(default=settings.topic, topics={}, key="order")
    return Wiring(settings=settings, routing=routing, consume={})


def told(site: Site) -> list[dict[str, Any]]:
    """Return the rows of the outbox, in the order of their ids."""
    return list(site.database[wire.OUTBOX].find(sort=[("_id", 1)]))


def test_what_was_not_sent_is_imported_once(lite_site: Site) -> None:
    """A dry run changes nothing; what is run again finds nothing; ids become headers."""
    old = lite_site.database["legacy"]
    ids = [ObjectId() for _ in range(250)]
    old.insert_many(
        {"_id": each, "name": "Paid", "data": {"n": n}, "sentAt": AT if n < 5 else None}
        for n, each in enumerate(ids)
    )
    dry = run(lite_site, *IMPORT, "--dry-run", "--json")
    assert values(dry) == [{"would_be_imported": 245, "left": 0}]
    assert told(lite_site) == []
    asked = run(lite_site, *IMPORT, code=1)
    assert "Import 245 rows of legacy?" in asked.stderr
    assert told(lite_site) == []
    assert run(lite_site, *IMPORT, "--yes").stdout == "245 imported.\n"
    assert run(lite_site, *IMPORT, "--yes").stdout == "0 imported.\n"
    rows = told(lite_site)
    assert [row["data"]["data"]["n"] for row in rows] == list(range(5, 250))
    assert [row["headers"]["legacy-id"] for row in rows] == [str(each) for each in ids[5:]]
    assert old.count_documents({"sentAt": None}) == 0
    noted = values(run(lite_site, "outbox", "actions", "--json"))
    assert sorted((each["what"], each["count"]) for each in noted) == [
        ("import", 0),
        ("import", 245),
    ]


def test_fields_are_where_they_are_said_to_be(lite_site: Site) -> None:
    """In objects and as JSON's text, in the order of a field, in another database."""
    other = lite_site.database.client[f"{lite_site.database.name}-old"]
    try:
        other["legacy"].insert_many(
            {
                "_id": n,
                "event": {"type": "Paid", "order": f"o-{n % 2}", "at": AT - n * timedelta(days=1)},
                "body": json.dumps({"n": n}),
                "state": "new" if n else "done",
                "meta": {"tenant": n, "none": None},
            }
            for n in range(4)
        )
        words = (
            *("--database", other.name, "--unsent", '{"state": "new"}'),
            *("--mark", '{"state": "done"}', "--order", "event.at"),
            *("--name-field", "event.type", "--data-field", "body", "--key-field", "event.order"),
            *("--headers-field", "meta", "--yes", "--json"),
        )
        assert values(run(lite_site, *IMPORT, *words)) == [{"imported": 3, "left": 0}]
        assert other["legacy"].distinct("state") == ["done"]
    finally:
        lite_site.database.client.drop_database(other.name)
    rows = told(lite_site)
    assert [row["data"] for row in rows] == [{"name": "Paid", "data": {"n": n}} for n in (3, 2, 1)]
    assert [row["key"] for row in rows] == ["o-1", "o-0", "o-1"]
    assert [row["headers"] for row in rows] == [
        {"tenant": str(n), "legacy-id": str(n)} for n in (3, 2, 1)
    ]


def test_what_is_no_event_is_left_and_named(lite_site: Site) -> None:
    """Each stops itself alone; nothing of its data is told."""
    lite_site.database["legacy"].insert_many(
        [
            {"_id": "a", "data": {"n": 1}},
            {"_id": "b", "data": "hunter2"},
            {"_id": "c", "data": None},
            {"_id": "d", "data": ["hunter2"]},
            {"_id": "e", "data": {"n": "x" * 6_000_000}},
            {"_id": "f", "data": {"n": 2}},
        ]
    )
    dry = run(lite_site, *IMPORT, "--name", "Paid", "--dry-run")
    assert dry.stdout == "2 would be imported, 4 left: they are no events.\n"
    assert told(lite_site) == []
    done = run(lite_site, *IMPORT, "--name", "Paid", "--yes")
    assert done.stdout == "2 imported, 4 left: they are no events.\n"
    assert done.stderr == dry.stderr
    assert [line[:3] for line in done.stderr.splitlines()] == ["b: ", "c: ", "d: ", "e: "]
    assert "hunter2" not in done.stderr
    assert [row["data"]["data"]["n"] for row in told(lite_site)] == [1, 2]
    assert run(lite_site, *IMPORT, "--name", "Paid", "--yes").stdout.startswith("0 imported, 4")


def test_what_cannot_be_decoded_is_left_and_named(lite_site: Site) -> None:
    """A string that is no UTF-8 stops its own row alone; large rows share no transaction."""
    old = lite_site.database["legacy"]
    broken = bson.encode({"_id": "b", "name": "Paid", "data": {"n": "hunter2"}})
    old.insert_one(RawBSONDocument(broken.replace(b"hunter2", b"hunter\xff")))
    old.insert_many({"_id": each, "name": "Paid", "data": {"n": each}} for each in "ac")
    source = OldOutbox(collection="legacy")
    assert importing.examined(lite_site.database, wiring(lite_site), source).left == 1
    done = importing.import_all(lite_site.database, wiring(lite_site), source, actor=operator())
    assert (done.done, done.left) == (2, 1)
    assert done.refused == ["b: The row cannot be decoded (InvalidBSON)"]
    assert [row["data"]["data"]["n"] for row in told(lite_site)] == ["a", "c"]
    large = [RawBSONDocument(bson.encode({"_id": n, "x": "x" * 5_000_000})) for n in range(3)]
    small = [RawBSONDocument(bson.encode({"_id": n})) for n in range(150)]
    chunks = importing._chunks([*large, *small])
    assert [len(each) for each in chunks] == [1, 1, 100, 51]


@pytest.mark.parametrize(
    ("collection", "mark", "sentence"),
    [
        ("legacy", {"seen": True}, "say by --mark"),
        ("nothing", {}, "There is no collection 'nothing'"),
        (wire.OUTBOX, {}, "of postroom's own"),
    ],
)
def test_what_would_be_imported_twice_is_refused(
    lite_site: Site, collection: str, mark: dict[str, Any], sentence: str
) -> None:
    """A mark that does not hide what was imported, and no collection; nothing is written."""
    lite_site.database["legacy"].insert_one({"name": "Paid", "data": {}})
    source = OldOutbox(collection=collection, mark=mark)
    with pytest.raises(ConfigurationError, match=sentence):
        importing.import_all(lite_site.database, wiring(lite_site), source, actor=operator())
    assert told(lite_site) == []
    assert lite_site.database["legacy"].find_one({"seen": True}) is None


def test_two_at_once_import_each_once(lite_site: Site) -> None:
    """Write conflicts are tried again; the key is what the application keys by."""
    lite_site.database["legacy"].insert_many(
        {"name": "Paid", "data": {"n": n, "order": "o"}} for n in range(300)
    )
    counts: list[int] = []

    def one() -> None:
        source = OldOutbox(collection="legacy")
        done = importing.import_all(lite_site.database, wiring(lite_site), source, actor=operator())
        counts.append(done.done)

    threads = [Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = told(lite_site)
    assert sorted(row["data"]["data"]["n"] for row in rows) == list(range(300))
    assert {row["key"] for row in rows} == {"o"}
    assert sum(counts) == 300


def test_the_page_imports_as_it_says(lite_site: Site) -> None:
    """The commands of docs/howto/moving.md, word by word."""
    old = lite_site.database["legacy_outbox"]
    old.insert_many({"name": "Paid", "data": {"n": n}, "status": "sent"} for n in range(2))
    meta = {"created_at": AT, "meta": {"tenant": "t"}, "event": {"type": "Paid", "order": "o"}}
    old.insert_one({**meta, "payload": {"n": 2}, "status": "pending", "sentAt": AT})
    commands = [
        shlex.split(line)[3:]
        for block in blocks(DOCS / "howto" / "moving.md")
        for line in block.text.replace("\\\n", " ").splitlines()
        if line.startswith("celery -A shop outbox import ")
    ]
    assert len(commands) == 3
    said = [run(lite_site, *words).stdout for words in commands]
    assert said == ["2 would be imported.\n", "2 imported.\n", "1 would be imported.\n"]
