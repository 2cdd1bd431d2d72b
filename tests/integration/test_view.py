"""The view of an outbox partition, by the database and as its relay tells, on real MongoDB."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from postroom import wire
from postroom.relay.state import State
from postroom.relay.watching import backlog, unattended
from postroom.relay.watching.view import PartitionView, Views, views
from postroom.store import server_time
from tests.relays import relaying, saved
from tests.site import row
from tests.waiting import beside, wait_until

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.site import Site


def view_of(site: Site, partition: str = "default") -> PartitionView:
    """Return the view of one outbox partition."""
    (found,) = [each for each in views(site.database).partitions if each.partition == partition]
    return found


def quickly(site: Site) -> Views:
    """Return all views, which took a second at most."""
    began = time.monotonic()
    found = views(site.database)
    assert time.monotonic() - began < 1.5
    return found


def writing(site: Site, seconds: float) -> AbstractContextManager[None]:
    """Insert a row every so many seconds."""

    def write(over: threading.Event) -> None:
        while not over.wait(seconds):
            site.insert(1)

    return beside(write)


def test_an_idle_relay_lags_by_nothing_and_one_that_stopped_by_its_oldest_row(
    lite_site: Site,
) -> None:
    """However old the checkpoint is; what waits grows older while no relay runs."""
    with relaying(lite_site, idle_checkpoint_seconds=60.0) as relay:
        lite_site.insert(3)
        saved(lite_site, 3)
        wait_until(lambda: relay.status.snapshot()["lag_seconds"] == 0, description="no lag")
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert relay.status.snapshot()["lag_seconds"] == 0
            threading.Event().wait(0.2)
        idle = view_of(lite_site)
        assert (idle.waiting, idle.lag_seconds) == (0, 0)
    assert relay.status.snapshot()["lag_seconds"] is None
    assert view_of(lite_site).lag_seconds == 0
    lite_site.insert(1)
    lite_site.insert(1)
    wait_until(lambda: (view_of(lite_site).lag_seconds or 0) >= 2, description="it grows")
    assert view_of(lite_site).waiting == 2
    with relaying(lite_site):
        saved(lite_site, 5)
        assert view_of(lite_site).lag_seconds == 0


def test_the_view_and_the_relay_call_the_same_things_by_the_same_names(lite_site: Site) -> None:
    """And name differently what is not the same."""
    poison = row(0) | {"data": {"name": "Counted", "data": "none"}}
    with relaying(lite_site) as relay:
        lite_site.outbox.insert_one(poison)
        lite_site.insert(1)
        saved(lite_site, 2)
        told = relay.status.snapshot()
        assert relay.status.state is State.RELAYING
    seen = view_of(lite_site)
    for name in ("partition", "owner", "epoch", "position", "lag_seconds"):
        if name != "lag_seconds":
            assert told[name] == getattr(seen, name), name
    assert told["quarantined_by_this_relay"] == seen.quarantined_now == 1
    assert {"since", "reached", "quarantined"}.isdisjoint(told)
    with relaying(lite_site) as later:
        wait_until(lambda: later.status.lag.caught_up_at > 0, description="an empty reply")
        assert later.status.snapshot()["quarantined_by_this_relay"] == 0
        assert view_of(lite_site).quarantined_now == 1


@pytest.mark.parametrize("seconds", [0.2, 0.05, 0.005])
def test_it_answers_while_rows_flow(lite_site: Site, seconds: float) -> None:
    """With a relay and without one: the counting ends where the stream did."""
    with relaying(lite_site):
        lite_site.insert(1)
        saved(lite_site, 1)
        with writing(lite_site, seconds):
            wait_until(lambda: lite_site.checkpoint["position"] > 5, description="a flow")
            for _ in range(5):
                (found,) = quickly(lite_site).partitions
                assert found.waiting is not None
                assert not found.waiting_at_least
    with writing(lite_site, seconds):
        wait_until(lambda: (view_of(lite_site).waiting or 0) > 3, description="what waits")
        quickly(lite_site)


def test_what_waits_is_counted_for_a_bounded_time_and_up_to_a_bound(
    lite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then says that it is at least so much."""
    with relaying(lite_site):
        lite_site.insert(1)
        saved(lite_site, 1)
    for _ in range(12):
        lite_site.insert(1000)
    monkeypatch.setattr("postroom.relay.watching.view.WAITING_SECONDS", 20.0)
    exact = view_of(lite_site)
    assert (exact.waiting, exact.waiting_at_least) == (12_000, False)
    monkeypatch.setattr(backlog, "MOST_COUNTED", 7000)
    bounded = view_of(lite_site)
    assert (bounded.waiting, bounded.waiting_at_least) == (7000, True)
    monkeypatch.setattr(backlog, "MOST_COUNTED", 1_000_000)
    monkeypatch.setattr("postroom.relay.watching.view.WAITING_SECONDS", 0.0)
    cut = quickly(lite_site).partitions[0]
    assert cut.waiting_at_least
    assert cut.waiting is not None
    assert cut.waiting < 12_000


def test_where_the_stream_does_not_reach_back_the_collection_tells(lite_site: Site) -> None:
    """Lost history: at least the rows that are younger than what is relayed."""
    with relaying(lite_site):
        lite_site.insert(1)
        saved(lite_site, 1)
    broken = {"_data": "82" + "0" * 60}
    lite_site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"resumeToken": broken}})
    wait_until(
        lambda: datetime.now(UTC) - lite_site.checkpoint["lastUpdatedAt"] > timedelta(seconds=2.5),
        description="a younger second",
    )
    lite_site.insert(3)
    found = view_of(lite_site)
    assert (found.waiting, found.waiting_at_least) == (3, True)
    assert found.lag_seconds is not None


def test_rows_of_outbox_partitions_that_nobody_relays_are_found(lite_site: Site) -> None:
    """Before any relay, beside one, and those that no relay could ever be for."""
    assert quickly(lite_site) == Views(partitions=[], complete=True)
    old = row(0, partition="north") | {"occurredAt": datetime.now(UTC) - timedelta(minutes=5)}
    lite_site.outbox.insert_many([old, row(1, partition="north"), row(2, partition="south")])
    nobody = quickly(lite_site)
    assert nobody.complete
    assert [(v.partition, v.ever_relayed, v.waiting) for v in nobody.partitions] == [
        ("north", False, 2),
        ("south", False, 1),
    ]
    assert 300 <= (view_of(lite_site, "north").lag_seconds or 0) < 400
    without: dict[str, Any] = row(3)
    del without["partitionKey"]
    lite_site.outbox.insert_one(without)
    with relaying(lite_site):
        lite_site.insert(2)
        saved(lite_site, 2)
        names = [(v.partition, v.ever_relayed) for v in quickly(lite_site).partitions]
    assert names == [
        ("None (no text)", False),
        ("default", True),
        ("north", False),
        ("south", False),
    ]


def test_rows_with_dates_that_python_cannot_hold_are_found_and_counted(lite_site: Site) -> None:
    """Of when they were written their ids tell, and they hide no others."""
    beyond = DatetimeMS(400_000_000_000_000)
    lite_site.outbox.insert_one({**row(1, partition="north"), "occurredAt": beyond})
    lite_site.outbox.insert_one({**row(2), "partitionKey": beyond})
    lite_site.outbox.insert_one(row(3, partition="south"))
    found = {each.partition: each.waiting for each in views(lite_site.database).partitions}
    assert found == {"north": 1, f"{beyond!r} (no text)": 1, "south": 1}


def test_the_search_for_them_is_bounded_and_says_so(
    lite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number and by time."""
    lite_site.outbox.insert_many([row(n, partition=f"p{n}") for n in range(60)])
    monkeypatch.setattr("postroom.relay.watching.view.UNATTENDED_SECONDS", 30.0)
    found = views(lite_site.database)
    assert not found.complete
    assert 50 <= len(found.partitions) <= 60
    monkeypatch.setattr(unattended, "MOST_FOUND", 100)
    monkeypatch.setattr("postroom.relay.watching.view.UNATTENDED_SECONDS", 0.0)
    assert not quickly(lite_site).complete


def test_rows_in_quarantine_are_counted_so_far_as_time_allows(
    lite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view says more than how many there are; never does it leave them out."""
    lite_site.database[wire.CHECKPOINTS].insert_one({"partitionKey": "default"})
    entries = [{"partitionKey": "default", "reason": "odd", "position": n} for n in range(30)]
    lite_site.database[wire.QUARANTINE].insert_many(entries)
    seen = view_of(lite_site)
    assert (seen.quarantined_now, seen.quarantined_more) == (30, False)
    monkeypatch.setattr("postroom.relay.watching.view.QUARANTINE_STEPS", (1, 20))
    seen = view_of(lite_site)
    assert (seen.quarantined_now, seen.quarantined_more) == (20, True)
    monkeypatch.setattr("postroom.relay.watching.view.QUARANTINE_SECONDS", 0.00001)
    seen = view_of(lite_site)
    assert (seen.quarantined_now, seen.quarantined_more) == (0, True)


def test_a_relay_notices_rows_that_nobody_relays_and_that_come_later(
    lite_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """It looks regularly, and says each outbox partition once."""
    caplog.set_level(logging.WARNING)
    bystander = unattended.Bystander(again_seconds=0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unattended, "LOOK_AFTER_SECONDS", 0.0)
        looks = itertools.count()
        find = unattended.find
        patch.setattr(unattended, "find", lambda *a, **k: (next(looks), find(*a, **k))[1])
        bystander.start(lite_site.database)
        try:
            wait_until(lambda: next(looks) > 2, description="it looks again")
            lite_site.outbox.insert_one(row(1, partition="north"))
            wait_until(lambda: "'north' wait" in caplog.text, description="the warning")
            seen = next(looks)
            wait_until(lambda: next(looks) > seen + 10, description="it goes on")
        finally:
            bystander.stop()
    assert caplog.text.count("north") == 1


def test_a_relay_warns_once_of_rows_that_nobody_relays(
    lite_site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By number and name, at its first term and not at the next one."""
    monkeypatch.setattr(unattended, "LOOK_AFTER_SECONDS", 0.0)
    looked = threading.Event()
    find = unattended.find

    def watched(*arguments: Any, **named: Any) -> Any:
        try:
            return find(*arguments, **named)
        finally:
            looked.set()

    monkeypatch.setattr(unattended, "find", watched)
    lite_site.outbox.insert_many([row(n, partition="north") for n in range(3)])
    caplog.set_level(logging.WARNING)
    said = "3 rows of outbox partition 'north' wait, and no relay was ever started for it"
    with relaying(lite_site) as relay:
        wait_until(lambda: said in caplog.text, description="the warning")
        looked.clear()
        lite_site.database[wire.CHECKPOINTS].update_one({}, {"$inc": {"epoch": 1}})
        lite_site.insert(1)
        wait_until(lambda: relay.status.counts.terms == 2, description="the second term")
        assert looked.wait(10)
    assert caplog.text.count("north") == 1


@pytest.mark.parametrize("zone", ["America/Chicago", "Asia/Kolkata"])
def test_where_the_machine_has_a_zone_of_its_own_times_are_the_same(
    lite_site: Site, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    """As Django gives each process one: what MongoDB says is UTC, with and without its zone."""
    with relaying(lite_site):
        lite_site.insert(1)
        saved(lite_site, 1)
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        old = row(0, partition="north") | {"occurredAt": datetime.now(UTC) - timedelta(minutes=5)}
        lite_site.outbox.insert_many([old, row(1)])
        assert abs(server_time.now(lite_site.database) - datetime.now(UTC)) < timedelta(seconds=5)
        assert 300 <= (view_of(lite_site, "north").lag_seconds or 0) < 400
        assert 0 <= (view_of(lite_site).lag_seconds or 0) < 100
        naive = datetime.now(UTC).replace(tzinfo=None)
        written = backlog.written_at({"occurredAt": naive})
        assert written == naive.replace(tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()
