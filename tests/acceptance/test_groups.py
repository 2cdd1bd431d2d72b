"""Groups: events that wait share a commit, and no other event's failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from postroom import inbox
from tests.shops import Shop
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site, Worker

pytestmark = pytest.mark.pulsar


@pytest.fixture
def shop(pulsar_site: Site) -> Shop:
    """Lend a shop on real Pulsar."""
    return Shop(pulsar_site)


def send(
    shop: Shop, number: int, *, key: str | None = None, way: str = "", name: str = "Grouped"
) -> str:
    """Send an event to a handler that takes groups, and return its id."""
    payload = orjson.dumps({"name": name, "data": {"number": number, "way": way}})
    return shop.send_raw(payload, key=key, event_id=f"e{number}")


def behind_a_blocked_thread(shop: Shop, name: str = "Grouped", **variables: str) -> Worker:
    """Start a worker whose only thread, and the place behind it, are taken for a while."""
    worker = shop.worker(POSTROOM_CONCURRENCY="1", **variables)
    worker.wait_for("Consuming ")
    for number in (-1, -2):
        send(shop, number, way="blocks", name=name)
        wait_until(lambda: shop.status().get("running", 0) >= 1, description="one runs")
    return worker


def test_what_comes_behind_the_commit_comes_once_for_each_event(shop: Shop) -> None:
    """Where it fails the effect stands, and it alone is tried again; twice is once."""
    worker = behind_a_blocked_thread(shop, "Announced")
    for number in range(6):
        send(shop, number, key=f"k{number}", way="after" if number == 3 else "", name="Announced")
    send(shop, 2, key="k2", name="Announced")
    after = shop.site.database["after"]
    wait_until(lambda: after.count_documents({"applied": True}) == 8, description="all are told")
    assert after.count_documents({}) == 9
    assert after.count_documents({"failed": True}) == 1
    assert sorted(shop.seen("announced")) == [-2, -1, 0, 1, 2, 3, 4, 5]
    assert worker.stop() == 0


def test_a_wait_that_a_handler_asks_for_is_kept_behind_undone_neighbours(shop: Shop) -> None:
    """Its key waits that long, in its order, and no other key does."""
    behind_a_blocked_thread(shop)
    for number, way in enumerate(("", "later", "", "")):
        send(shop, number, key="a", way=way)
    send(shop, 4, key="b")
    wait_until(lambda: shop.seen(key="b") == [4], description="the other key")
    assert shop.seen(key="a") in ([], [0])
    wait_until(lambda: shop.seen(key="a") == [0, 1, 2, 3], description="the key goes on")


def transactions(shop: Shop) -> list[list[str]]:
    """Return the events of each committed transaction, in its order."""
    found: dict[Any, list[str]] = {}
    for row in shop.site.database["grouped"].find({"event": {"$nin": ["e-1", "e-2"]}}).sort("_id"):
        found.setdefault((row["session"], row["transaction"]), []).append(row["event"])
    return list(found.values())


def test_events_that_wait_share_a_transaction_and_keep_their_order(shop: Shop) -> None:
    """Of many keys, or of one in its order; each is a task of its own, as a lone event is."""
    worker = behind_a_blocked_thread(shop)
    for number in range(16):
        send(shop, number, key=f"k{number % 3}")
    shop.wait_for(18)
    assert len(transactions(shop)) <= 3
    for key in range(3):
        assert shop.seen(key=f"k{key}") == list(range(key, 16, 3))
    # A task ends a moment behind the commit that the shop has seen.
    for number in range(16):
        wait_until(
            lambda: worker.text().count(f"[e{number}] succeeded in") == 1,  # noqa: B023
            description="each is a task that ends once",
        )
    assert shop.site.database["__inboxMessages"].count_documents({"name": "Grouped"}) == 18
    assert worker.stop() == 0


def test_the_writes_that_handlers_return_share_a_commit_and_no_failure(shop: Shop) -> None:
    """The refused one alone is given up, with nothing of its data; redriven, it is applied."""
    things = shop.site.database["things"]
    things.insert_one({"_id": "taken"})
    worker = behind_a_blocked_thread(shop, "Returned")
    for number in range(9):
        way = "refused" if number == 4 else ""
        send(shop, number, key=f"k{number % 3}", way=way, name="Returned")
    shop.wait_for(10)
    (letter,) = shop.dead(1)
    assert letter.properties()["id"] == "e4"
    assert letter.properties()["dead-letter-attempts"] == "2"
    assert letter.properties()["dead-letter-reason"] == (
        "MongoDB refuses operation 2 of the 2 that the handler shop.returned has returned, "
        "InsertOne: DuplicateKeyError, code 11000 (attempt 2 of 2)"
    )
    for key, numbers in (("k0", [0, 3, 6]), ("k1", [1, 7]), ("k2", [2, 5, 8])):
        assert shop.seen(key=key) == numbers
    assert sorted(shop.seen("returned")) == [-2, -1, 0, 1, 2, 3, 5, 6, 7, 8]
    assert "taken" not in worker.text()
    things.delete_many({})
    assert inbox.redrive(shop.site.settings()).put_back == 1
    wait_until(lambda: 4 in shop.seen("returned"), description="it is applied")
    assert things.count_documents({}) == 1
    assert worker.stop() == 0


def test_a_returned_write_that_takes_too_long_is_its_own_events_attempt(shop: Shop) -> None:
    """Nobody says of a group's whose it was: it shows when each is handled by itself."""
    worker = behind_a_blocked_thread(shop, "Returned")
    for number in range(4):
        way = "sleeps" if number == 2 else ""
        send(shop, number, key=f"k{number}", way=way, name="Returned")
    (letter,) = shop.dead(1)
    assert letter.properties()["id"] == "e2"
    assert letter.properties()["dead-letter-attempts"] == "2"
    assert letter.properties()["dead-letter-reason"] == (
        "The handler shop.returned ran past its timeout of 2 s: it hangs while MongoDB takes what "
        "the handler has returned (attempt 2 of 2)"
    )
    assert sorted(shop.wait_for(5)) == [-2, -1, 0, 1, 3]
    assert worker.text().count("that was an attempt") == 2
    assert worker.stop() == 0


@pytest.mark.parametrize("way", ["raises", "rejected", "commits"])
def test_the_guilty_one_alone_is_given_up(shop: Shop, way: str) -> None:
    """Its neighbours are applied once, without it, and have used up no attempt."""
    worker = behind_a_blocked_thread(shop, POSTROOM_MAX_ATTEMPTS="1")
    for number in range(9):
        send(shop, number, key=f"k{number % 3}", way=way if number == 4 else "")
    shop.wait_for(10)
    (letter,) = shop.dead(1)
    assert letter.properties()["id"] == "e4"
    assert letter.properties()["dead-letter-attempts"] == ("2" if way == "raises" else "1")
    wait_until(lambda: shop.seen(key="k1") == [1, 7], description="the key goes on")
    assert shop.seen(key="k0") == [0, 3, 6]
    assert shop.seen(key="k2") == [2, 5, 8]
    assert len(shop.seen("grouped")) == 10
    assert worker.stop() == 0


def test_one_that_runs_out_of_time_is_tried_again_alone(shop: Shop) -> None:
    """The others are handled meanwhile, and later events of its key behind it."""
    worker = behind_a_blocked_thread(shop)
    for number in range(6):
        send(shop, number, key=f"k{number % 2}", way="hangs" if number == 2 else "")
    shop.wait_for(8)
    assert shop.seen(key="k0") == [0, 2, 4]
    assert shop.seen(key="k1") == [1, 3, 5]
    assert "with event e2" in worker.text()
    assert shop.site.database["tries"].find_one({"_id": "e2"}) == {"_id": "e2", "n": 2}
    assert worker.text().count("ran past its timeout") >= 1


def test_one_that_spoils_the_transaction_unseen_blames_no_neighbour(shop: Shop) -> None:
    """It caught an error by which MongoDB has ended the transaction: it fails when it is alone."""
    behind_a_blocked_thread(shop)
    for number in range(4):
        send(shop, number, key=f"k{number}", way="spoils" if number == 1 else "")
    shop.wait_for(5)
    assert sorted(shop.seen("grouped")) == [-2, -1, 0, 2, 3]


def test_groups_that_write_one_document_burn_no_attempts(shop: Shop) -> None:
    """Two workers' transactions conflict again and again; each event is applied, and once."""
    for number in range(80):
        send(shop, number, key=f"k{number % 20}", way="hot")
    for _ in range(2):
        shop.worker(POSTROOM_CONCURRENCY="4")
    shop.wait_for(80, seconds=60)
    assert sorted(shop.seen("grouped")) == list(range(80))
    assert sorted(shop.seen(key="hot")) == list(range(80))
    for key in range(20):
        assert shop.seen(key=f"k{key}") == list(range(key, 80, 20))


def test_a_crash_in_a_group_makes_suspects_that_run_alone(shop: Shop) -> None:
    """Only the event that ends workers becomes a dead letter."""
    worker = behind_a_blocked_thread(shop)
    for number in range(6):
        send(shop, number, key=f"k{number}", way="crashes" if number == 3 else "")
    assert worker.exit_code() == 7
    assert shop.worker().exit_code() == 7
    shop.worker()
    shop.wait_for(7)
    (letter,) = shop.dead(1)
    assert letter.properties()["id"] == "e3"
    assert sorted(shop.seen("grouped")) == [-2, -1, 0, 1, 2, 4, 5]


def test_a_transaction_of_slow_handlers_stays_short(shop: Shop) -> None:
    """No further event is begun in one that has been open for a quarter of a second."""
    behind_a_blocked_thread(shop)
    for number in range(8):
        send(shop, number, key="k", way="waits")
    shop.wait_for(10)
    assert shop.seen(key="k") == list(range(8))
    assert max(len(events) for events in transactions(shop)) <= 4
