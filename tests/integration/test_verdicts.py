"""Rows that are set aside, and those that are not: what decides, and what it costs to be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pymongo.errors import AutoReconnect

from postroom import wire
from postroom.relay.sending import returning
from postroom.store.quarantine import Quarantine
from postroom.store.values import DEFAULT_PARTITION
from tests.relays import relaying, saved, waits
from tests.site import Site, ids, row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping


WRONG = {"name": "Counted"}


def quarantined(site: Site) -> set[str]:
    """Return the ids of the rows in quarantine."""
    return {str(e["_id"]) for e in site.database[wire.QUARANTINE].find({"retriedAt": None})}


def test_an_event_that_was_sent_elsewhere_before_a_deploy_is_left_out(pulsar_site: Site) -> None:
    """The relay was killed between send and checkpoint, and the routing is another one now."""
    site, second = pulsar_site, f"{pulsar_site.topic}-second"
    with relaying(site):
        first = site.insert(5)
        before = saved(site, 5)
        first += site.insert(20, first=5)
        saved(site, 25)
    site.database[wire.CHECKPOINTS].replace_one({}, before)
    with relaying(site, topics={"Counted": second}, wait=False):
        later = site.insert(5, first=25)
        wait_until(lambda: len(site.stored(second)) == 5, description="what is new")
        saved(site, 30)
    assert site.stored() == first
    assert site.stored(second) == later


def test_an_event_that_was_sent_is_not_set_aside_by_settings_that_came_later(
    pulsar_site: Site,
) -> None:
    """Nor does it stay in quarantine where an earlier version has put it."""
    site = pulsar_site
    rows = [row(n) for n in range(10)]
    rows[3]["data"]["data"]["text"] = "x" * 5000
    with relaying(site):
        before = saved(site, 0)
        site.outbox.insert_many(rows)
        saved(site, 10)
    site.database[wire.CHECKPOINTS].replace_one({}, before | {"lanes": site.checkpoint["lanes"]})
    # The topic was read from its beginning on then.
    site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"lanes.0.messageId": None}})
    site.database[wire.QUARANTINE].insert_one(
        {"_id": rows[3]["_id"], "partitionKey": "default", "reason": "too large", "position": 4}
    )
    with relaying(site, wait=False, max_message_bytes=2048):
        written = site.insert(1, first=10)
        saved(site, 11)
    assert site.stored() == [*(str(each["_id"]) for each in rows), *written]
    assert not quarantined(site)


def test_many_poison_rows_stop_the_relay_with_a_question(site: Site) -> None:
    """It goes on by itself once what they have in common is mended, and no row is lost."""
    plain = site.subscribe()
    good = site.insert(1)
    site.outbox.insert_many([row(n) | {"data": WRONG} for n in range(300)])
    good += site.insert(1)
    with relaying(site, wait=False, poison_limit=100) as relay:
        wait_until(lambda: waits(relay), description="it stops")
        wait_until(lambda: len(quarantined(site)) >= 100, description="the first hundred")
        assert "POSTROOM_POISON_LIMIT" in relay.status.reason
        assert ids(site.receive(plain, 1)) == good[:1]
    with relaying(site, wait=False, poison_limit=100) as relay:
        wait_until(lambda: waits(relay), description="it stops again")
    assert len(quarantined(site)) < 200
    with relaying(site, wait=False, poison_limit=0):
        assert ids(site.receive(plain, 1)) == good[1:]
        wait_until(lambda: len(quarantined(site)) == 300, description="all of them, as confirmed")


@pytest.mark.parametrize("how", ["mended", "removed"])
def test_the_brake_lets_go_of_rows_that_were_mended_or_removed(lite_site: Site, how: str) -> None:
    """The stream shows them as they were written for ever; the relay looks at what they are now."""
    good = lite_site.insert(1)
    bad = [row(n) | {"data": WRONG} for n in range(8)]
    lite_site.outbox.insert_many(bad)
    good += lite_site.insert(2)
    with relaying(lite_site, wait=False, poison_limit=3) as relay:
        wait_until(lambda: waits(relay), description="it stops")
        wait_until(lambda: len(quarantined(lite_site)) == 3, description="the first three")
        left = [each["_id"] for each in bad[3:]]
        if how == "removed":
            lite_site.outbox.delete_many({"_id": {"$in": left}})
            expected = good
        else:
            mended = {"$set": {"data": row(0)["data"]}}
            lite_site.outbox.update_many({"_id": {"$in": left}}, mended)
            expected = [good[0], *map(str, left), *good[1:]]
        wait_until(lambda: lite_site.stored() == expected, description="the rest", seconds=30)
    assert len(quarantined(lite_site)) == 3


def test_a_function_that_fails_for_a_moment_sets_nothing_aside(site: Site) -> None:
    """A time-out of what it asks is no fault of the row's."""
    plain = site.subscribe()
    failures = [TimeoutError(), ConnectionError(), TimeoutError()]

    def topics(_: str, __: Mapping[str, Any]) -> str | None:
        if failures:
            raise failures.pop()
        return None

    with relaying(site, topics=topics, wait=False):
        written = site.insert(5)
        assert ids(site.receive(plain, 5)) == written
    assert not quarantined(site)


def test_what_was_set_aside_flows_after_a_retry_without_a_restart(pulsar_site: Site) -> None:
    """A function fails over some rows until it has been mended."""
    site = pulsar_site
    mended: list[bool] = []

    def topics(name: str, _: Mapping[str, Any]) -> str | None:
        if name == "Broken" and not mended:
            raise ValueError("a mistake")
        return None

    with relaying(site, topics=topics):
        waiting = site.insert(3, name="Broken")
        written = site.insert(3)
        saved(site, 6)
        assert quarantined(site) == set(waiting)
        mended.append(True)
        quarantine = Quarantine(site.database, partition=DEFAULT_PARTITION)
        assert all(quarantine.retry(entry.row_id) for entry in quarantine.entries())
        saved(site, 9)
    assert site.stored() == written + waiting


def test_rows_for_a_topic_that_was_a_mistake_return_once_they_are_routed_elsewhere(
    pulsar_site: Site,
) -> None:
    """A function names a topic in a namespace that is not there; nobody has to ask for a retry."""
    site = pulsar_site
    mended: list[bool] = []

    def topics(name: str, _: Mapping[str, Any]) -> str | None:
        if name != "Broken":
            return None
        return f"{site.topic}-mended" if mended else f"persistent://public/no-{site.name}/such"

    with relaying(site, topics=topics):
        waiting = site.insert(3, name="Broken")
        written = site.insert(3)
        saved(site, 6)
        assert quarantined(site) == set(waiting)
        mended.append(True)
        wait_until(lambda: not quarantined(site), description="all have returned", seconds=60)
    assert site.stored(f"{site.topic}-mended") == waiting
    assert site.stored() == written


def test_rows_that_are_routed_to_a_topic_in_use_return_behind_what_flows_there(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get numbers that its broker takes, and once each, though a term ends in between."""
    site = pulsar_site
    monkeypatch.setattr(returning, "ROWS_AT_ONCE", 20)
    mended: list[bool] = []

    def topics(name: str, _: Mapping[str, Any]) -> str | None:
        if name != "Broken" or mended:
            return None
        return f"persistent://public/no-{site.name}/such"

    forget, failed = Quarantine.forget_returned, list[str]()

    def failing(self: Quarantine, row_ids: list[Any]) -> None:
        if not failed:
            failed.append("once")
            raise AutoReconnect("the primary is gone")
        forget(self, row_ids)

    def returned(written: list[str]) -> bool:
        written += site.insert(1)
        return not quarantined(site)

    monkeypatch.setattr(Quarantine, "forget_returned", failing)
    with relaying(site, topics=topics) as relay:
        waiting = site.insert(50, name="Broken")
        saved(site, 50)
        written = site.insert(30)
        saved(site, 80)
        mended.append(True)
        wait_until(lambda: returned(written), description="all have returned", seconds=60)
        everything = waiting + written + site.insert(1)
        wait_until(lambda: len(site.stored()) >= len(everything), description="all is there")
        terms = relay.status.counts.terms
    found = site.stored()
    assert sorted(found) == sorted(everything)
    assert [each for each in found if each in waiting] == waiting
    assert terms == 2, "the one that failed, and no other"
