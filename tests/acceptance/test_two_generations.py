"""A deploy that adds an event type: workers of two generations share a subscription."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from postroom import wire
from tests.shops import Shop
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site, Worker

pytestmark = pytest.mark.pulsar

KEYS = [f"p{number}" for number in range(12)]
OLD = {"SHOP_WITHOUT": "shop.note"}


@pytest.fixture
def shop(pulsar_site: Site) -> Shop:
    """Lend a shop on real Pulsar."""
    return Shop(pulsar_site)


def begun(shop: Shop, workers: int, **variables: str) -> Worker:
    """Start a consumer worker, and wait until all of so many know it."""
    worker = shop.worker(**variables)
    worker.wait_for("Consuming ")
    rows = shop.site.database[wire.REPERTOIRES]
    wait_until(lambda: rows.count_documents({}) == workers, description="it has told")
    told = time.monotonic()
    wait_until(lambda: time.monotonic() > told + 1.1, description="others have asked since")
    return worker


def numbers(shop: Shop) -> list[tuple[str, Any]]:
    """Return what the handlers have noted, in order."""
    return [
        (row["handler"], row["number"]) for row in shop.site.database["seen"].find().sort("_id")
    ]


def test_an_old_worker_acknowledges_no_event_that_a_newer_one_handles(shop: Shop) -> None:
    """It waits there, later ones of its key behind it; each is handled once, in the key's order."""
    old = begun(shop, 1, **OLD)
    shop.send("Counted", -1, key="p0")  # that nobody handles yet
    shop.send("Unknown", -2, key="p0")
    begun(shop, 2)
    for number, key in enumerate(KEYS):
        shop.send("Counted", number, key=key)
        shop.send("Typed", number, key=key)
    shop.send("Unknown", -3, key="p0")
    shop.send("Counted", 100)
    old.wait_for("wait here unacknowledged, the last one called 'Counted'")
    wait_until(lambda: len(numbers(shop)) >= 2, description="the new one is at work")
    assert len(numbers(shop)) < 2 * len(KEYS)
    assert old.stop() == 0
    wait_until(lambda: len(numbers(shop)) >= 2 * len(KEYS) + 1, description="all are handled")
    seen = numbers(shop)
    assert len(seen) == len(set(seen)) == 2 * len(KEYS) + 1
    for number in range(len(KEYS)):
        assert seen.index(("note", number)) < seen.index(("typed", number))
    wait_until(lambda: shop.status().get("held") == 0, description="nothing waits any more")
    assert ("note", -1) not in seen


def test_what_a_handler_wanted_that_was_taken_away_is_let_go(shop: Shop) -> None:
    """New workers leave it to old ones for as long as these run, and acknowledge it then."""
    old = begun(shop, 1)
    new = begun(shop, 2, **OLD)
    for number, key in enumerate(KEYS):
        shop.send("Counted", number, key=key)
    new.wait_for("wait here unacknowledged")
    assert old.stop() == 0
    wait_until(lambda: shop.status().get("held") == 0, description="nothing waits any more")
    shop.send("Typed", 1, key="p0")
    wait_until(lambda: ("typed", 1) in numbers(shop), description="later ones are handled")


def test_without_the_rights_it_is_as_it_was(shop: Shop) -> None:
    """A worker whom MongoDB refuses the collection says so, and consumes."""
    shop.site.database.create_collection(
        wire.REPERTOIRES, validator={"never": True}, validationAction="error"
    )
    worker = shop.worker(**OLD)
    worker.wait_for("MongoDB refuses the consumer of 'test' the collection __inboxRepertoires")
    shop.send("Counted", 1)
    shop.send("Typed", 2)
    wait_until(lambda: ("typed", 2) in numbers(shop), description="it consumes")
