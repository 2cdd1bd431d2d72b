"""`celery -A tasks outbox …`: who relays, how far, and rows that could not be sent, mended."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import orjson
import pytest

from postroom import wire
from tests.relays import relaying, saved
from tests.site import ids, row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site

OUTBOX = "celery -A tasks outbox"


def test_status_says_how_far_and_what_waits(lite_site: Site) -> None:
    """Before the first relay, while it relays, and with rows written after its end."""
    assert "No relay has ever been started" in lite_site.run(f"{OUTBOX} status")
    relay = lite_site.relay()
    relay.wait_for("goes on from there")
    written = lite_site.insert(3)
    wait_until(lambda: lite_site.checkpoint.get("position") == 3, description="the checkpoint")
    assert relay.stop() == 0
    lite_site.insert(2)
    found = orjson.loads(lite_site.run(f"{OUTBOX} status --json"))
    assert found["partition"] == "default"
    assert found["epoch"] == 1
    assert (found["position"], found["waiting"], found["quarantined_now"]) == (3, 2, 0)
    assert found["last_relayed_row"] == written[-1]
    assert found["topics"] == [lite_site.topic]
    shown = lite_site.run(f"{OUTBOX} status")
    assert "partition default" in shown
    assert [line.split() for line in shown.splitlines() if "quarantined" in line] == [
        ["quarantined", "now", "0"]
    ]
    assert found["owner"] in shown


def test_status_answers_in_time_and_shows_what_nobody_relays(lite_site: Site) -> None:
    """Before any relay and beside one, while rows flow; the counting costs less than a second."""
    lite_site.outbox.insert_many([row(n, partition="north") for n in range(3)])
    shown = lite_site.run(f"{OUTBOX} status")
    assert "No relay has ever been started" in shown
    assert "outbox partition north" in shown
    assert "none was ever started for it" in shown
    relay = lite_site.relay()
    relay.wait_for("3 rows of outbox partition 'north' wait")
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.05):
            lite_site.insert(1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        wait_until(lambda: lite_site.checkpoint.get("position", 0) > 5, description="a flow")
        started = timed(lite_site, f"{OUTBOX} --help")
        for _ in range(3):
            assert timed(lite_site, f"{OUTBOX} status --json") < 2 * started + 1.5
    finally:
        over.set()
        thread.join()
    default, north = map(orjson.loads, lite_site.run(f"{OUTBOX} status --json").splitlines())
    assert (default["partition"], default["ever_relayed"]) == ("default", True)
    assert default["lag_seconds"] <= 2
    assert (north["partition"], north["ever_relayed"], north["waiting"]) == ("north", False, 3)
    assert relay.stop() == 0


def timed(site: Site, words: str) -> float:
    """Run a literal command, and return how many seconds it took."""
    began = time.monotonic()
    site.run(words)
    return time.monotonic() - began


def test_a_quarantined_row_is_mended_and_sent(lite_site: Site) -> None:
    """Listed with its reason and without its data, put back as it is now, or forgotten."""
    plain = lite_site.subscribe()
    relay = lite_site.relay()
    relay.wait_for("goes on from there")
    poison = [row(0) | {"data": {"name": "Secret", "data": number}} for number in range(2)]
    lite_site.outbox.insert_many(poison)
    before = lite_site.insert(1)
    assert ids(lite_site.receive(plain, 1)) == before
    first, second = (str(each["_id"]) for each in poison)
    wait_until(lambda: first in lite_site.run(f"{OUTBOX} quarantine list"), description="its entry")
    listed = lite_site.run(f"{OUTBOX} quarantine list --json").splitlines()
    assert [orjson.loads(line)["row_id"] for line in listed] == [first, second]
    assert "no object as `data`" in listed[0]

    lite_site.outbox.update_one({"_id": poison[0]["_id"]}, {"$set": {"data.data": {"n": 1}}})
    put_back = lite_site.run(f"{OUTBOX} quarantine redrive --id {first} --id {second}")
    assert put_back == "2 put back.\n"
    (mended,) = lite_site.receive(plain, 1)
    assert ids([mended]) == [first]
    assert orjson.loads(mended.data()) == {"name": "Secret", "data": {"n": 1}}
    wait_until(lambda: second in lite_site.run(f"{OUTBOX} quarantine list"), description="it again")
    assert lite_site.run(f"{OUTBOX} quarantine discard --all --yes") == "1 discarded.\n"
    assert lite_site.run(f"{OUTBOX} quarantine list --json") == ""
    assert relay.stop() == 0


@pytest.mark.pulsar
def test_two_operators_put_back_all_rows_at_once_beside_a_relay(pulsar_site: Site) -> None:
    """Two commands: what one of them puts back the other one does not, and each is sent once."""
    site = pulsar_site
    good = [row(number) for number in range(150)]
    poison = [row(number) | {"data": {"name": "Mended"}} for number in range(150)]
    with relaying(site):
        site.outbox.insert_many([each for both in zip(good, poison, strict=True) for each in both])
        saved(site, 300)
        site.outbox.update_many({"data.name": "Mended"}, {"$set": {"data.data": {}}})
        with ThreadPoolExecutor(2) as pool:
            said = list(pool.map(site.run, [f"{OUTBOX} quarantine redrive --all --json"] * 2))
        done = [orjson.loads(each) for each in said]
        assert sum(each["put_back"] for each in done) == len(poison)
        assert sum(each["left"] for each in done) > 0, "they met"
        written = [str(each["_id"]) for each in [*good, *poison]]
        wait_until(lambda: len(site.stored()) >= len(written), description="all of them")
        last = site.insert(1)
        wait_until(lambda: site.stored()[-1:] == last, description="the last one")
    assert sorted(site.stored()) == sorted([*written, *last])
    assert site.database[wire.QUARANTINE].count_documents({"retriedAt": None}) == 0
