"""What operators do: filters and pages, acts that are noted, and the journey of one event."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from bson import ObjectId
from pymongo import errors as mongo

from postroom import ConfigurationError, wire
from postroom.operations import actions, quarantined
from postroom.operations.actions import Actor
from postroom.operations.filters import Filter, containing
from postroom.operations.journey import journey
from postroom.operations.wiring import Wiring
from postroom.routing import Routing
from postroom.store.quarantine import Quarantine, Quarantined
from postroom.store.values import DEFAULT_PARTITION, Position
from tests.site import row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site

ME = Actor(who="me@here", by="test")
NOW = datetime.now(UTC)


def wiring_of(site: Site, **changes: Any) -> Wiring:
    """Return the wiring of a site whose one subscription reads its topic."""
    settings = site.settings(**changes)
    return Wiring(
        settings=settings,
        routing=Routing(default=settings.topic, topics={}, key=None),
        consume={"test": [settings.topic]},
    )


def set_aside(site: Site, *reasons: str, name: str = "Paid", **fields: Any) -> list[Any]:
    """Put rows into the outbox and into quarantine, and return their ids."""
    rows = [{**row(number, name=name), **fields} for number in range(len(reasons))]
    site.outbox.insert_many(rows)
    Quarantine(site.database, partition=DEFAULT_PARTITION).store(
        [
            Quarantined(row_id=each["_id"], position=Position(n), reason=reason)
            for n, (each, reason) in enumerate(zip(rows, reasons, strict=True))
        ]
    )
    return [each["_id"] for each in rows]


def found(site: Site, **where: Any) -> list[Any]:
    """Return the ids of the quarantined rows that match, and make sure that all counts agree."""
    page = quarantined.page(site.database, Filter(**where))
    assert page.matching == len(page.items) == quarantined.count(site.database, Filter(**where))
    return [each.row_id for each in page.items]


def test_each_field_of_the_filter_is_searched_by_mongodb(lite_site: Site) -> None:
    """Name and key are the row's, the others the entry's; brackets stand for themselves."""
    a, b = set_aside(lite_site, "ValueError: [x]", "The row has no `data`", key="k1")
    (c,) = set_aside(lite_site, "ValueError: [y]", name="Sent", key=17)
    assert found(lite_site) == [a, b, c]
    assert found(lite_site, name="Sent") == [c]
    assert found(lite_site, key="17") == [c]
    assert found(lite_site, key="k1", kind="ValueError") == [a]
    assert found(lite_site, reason=containing("[X]")) == [a]
    assert found(lite_site, reason=re.compile("^(?P<kind>The row)")) == [b]
    assert found(lite_site, ids=(str(c), str(a))) == [a, c]
    assert found(lite_site, handler="shop.pay") == []
    assert found(lite_site, topic="public/default/x") == []
    assert found(lite_site, since=NOW + timedelta(days=1)) == []
    assert len(found(lite_site, until=NOW + timedelta(days=1))) == 3
    field = quarantined.page(lite_site.database, Filter(key="0"), key_field="number")
    assert [each.row_id for each in field.items] == []  # the rows bring keys of their own
    lite_site.outbox.update_one({"_id": a}, {"$unset": {"key": ""}})
    field = quarantined.page(lite_site.database, Filter(key="0"), key_field="number")
    assert [each.row_id for each in field.items] == [a]


def test_an_expression_that_mongodb_does_not_know_is_a_sentence(lite_site: Site) -> None:
    """Python's and MongoDB's expressions differ in corners."""
    set_aside(lite_site, "x")
    with pytest.raises(ConfigurationError, match="MongoDB cannot search"):
        quarantined.page(lite_site.database, Filter(reason=re.compile("(?a)x")))


def test_a_hundred_thousand_rows_are_paged_by_the_server(lite_site: Site) -> None:
    """None and many: a page takes a moment, and pages neither overlap nor leave any out."""
    assert quarantined.page(lite_site.database, Filter(name="Paid")).matching == 0
    at = datetime.now(UTC)
    lite_site.database[wire.QUARANTINE].insert_many(
        {"_id": n, "partitionKey": "default", "reason": "x", "position": n, "quarantinedAt": at}
        for n in range(100_000)
    )
    began = time.monotonic()
    first = quarantined.page(lite_site.database, limit=50)
    last = quarantined.page(lite_site.database, skip=99_970, limit=50)
    assert time.monotonic() - began < 10
    assert (first.matching, len(first.items), len(last.items)) == (100_000, 50, 30)
    assert [each.row_id for each in last.items] == list(range(99_970, 100_000))


def test_acts_do_what_matches_and_are_noted(lite_site: Site) -> None:
    """Who, when, which filter, how many and what came of it; also where it was cut short."""
    a, b, c = set_aside(lite_site, "ValueError: 1", "KeyError: 2", "ValueError: 3")
    where = Filter(kind="ValueError", key=None)
    lite_site.outbox.delete_one({"_id": c})
    done = quarantined.redrive(lite_site.database, where, actor=ME)
    assert (done.asked, done.done, done.left) == (2, 1, 1)
    assert set(found(lite_site)) == {b, c}

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quarantined.discard(lite_site.database, Filter(ids=(str(b),)), actor=ME, told=interrupt)
    assert found(lite_site) == [c]
    second, first = actions.latest(lite_site.database)
    assert (first.what, first.who, first.by) == ("quarantine redrive", "me@here", "test")
    assert (first.where, first.count, first.result) == ({"kind": "ValueError"}, 1, "done")
    assert first.target == "all outbox partitions"
    assert (second.what, second.count, second.result) == ("quarantine discard", 1, "interrupted")
    assert second.began_at is not None
    assert second.ended_at is not None
    assert a not in found(lite_site)


def test_what_cannot_be_noted_is_not_done(lite_site: Site) -> None:
    """An act without a trace is none: the rows stay as they are."""
    set_aside(lite_site, "x")
    lite_site.database.create_collection(wire.ACTIONS, validator={"no": {"$exists": True}})
    with pytest.raises(mongo.PyMongoError):
        quarantined.discard(lite_site.database, Filter(), actor=ME)
    assert len(found(lite_site)) == 1


def test_the_journey_of_an_event(site: Site) -> None:
    """Written, sent, and what each place knows; on each broker."""
    site.subscribe()
    event_id = site.insert(1)[0]
    relay = site.relay()
    wait_until(lambda: site.checkpoint.get("position") == 1, description="it is relayed")
    relay.kill()
    site.database[wire.INBOX].insert_many(
        [
            {"_id": {"subscription": s, "handler": h, "eventId": e}, "handledAt": NOW}
            for s, h, e in [
                ("", "shop.pay", ""),
                ("other", "shop.pay", "e1"),
                ("test", "shop.pay", event_id),
                ("test", "shop.send", "e3"),
            ]
        ]
    )
    was = journey(site.database, wiring_of(site), event_id)
    assert was.not_looked == []
    assert was.row is not None
    assert (was.row.name, was.row.partition) == ("Counted", "default")
    assert was.committed_at is not None
    assert abs(was.committed_at - datetime.now(UTC)) < timedelta(minutes=5)
    (message,) = was.messages
    assert (message.topic, message.position, message.is_replay) == (site.topic, 1, False)
    (handled,) = was.handled
    assert (handled.trace.handler, handled.task_id) == ("shop.pay", event_id)
    assert handled.trace.handled_at is not None
    for never in ("0" * 24, "f" * 24):
        assert journey(site.database, wiring_of(site), never).not_looked == []
    nobody = journey(site.database, wiring_of(site), str(ObjectId()))
    assert not nobody.is_found
    assert any(site.topic in where for where in nobody.looked)
    assert any(wire.INBOX in where for where in nobody.looked)


def test_a_journey_without_pulsar_says_so(lite_site: Site) -> None:
    """What MongoDB knows is shown; where could not be looked is a sentence."""
    (row_id,) = set_aside(lite_site, "The row has no `data`")
    away = wiring_of(lite_site, pulsar_url="pulsar://127.0.0.1:1")
    was = journey(lite_site.database, away, str(row_id))
    assert was.quarantined is not None
    assert was.quarantined.reason == "The row has no `data`"
    assert any("127.0.0.1:1" in sentence for sentence in was.not_looked)


@pytest.mark.parametrize("event_id", ["", "  ", "a\0b", "\udc80"])
def test_what_is_no_id_is_refused(lite_site: Site, event_id: str) -> None:
    """A sentence, before anything is asked."""
    with pytest.raises(ConfigurationError):
        journey(lite_site.database, wiring_of(lite_site), event_id)
