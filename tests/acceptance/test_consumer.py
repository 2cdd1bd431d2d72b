"""The consumer worker: every event a task, its effect once, none stuck and none lost."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from celery import Celery

from devstack.service import free_port
from devstack.valkey import Valkey
from tests.shops import Shop
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.site import Site


@pytest.fixture
def shop(pulsar_site: Site) -> Shop:
    """Lend a shop on real Pulsar."""
    return Shop(pulsar_site)


BAD = [
    b"",
    b"nonsense",
    b"[1]",
    b'{"name": "Typed"}',
    b'{"name": 7, "data": {}}',
    b'{"name": "Typed", "data": {}}',
    b'{"name": "Typed", "data": {"number": "secret"}}',
    b'{"name": "Typed", "data": ' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}",
]


@pytest.mark.parametrize("site", ["lite", "pulsar"], indirect=True)
def test_bad_messages_become_dead_letters_and_good_ones_flow(site: Site) -> None:
    """What can never succeed is set aside with its reason; nothing is stuck or lost."""
    shop = Shop(site)
    shop.worker()
    for payload in BAD:
        shop.send_raw(payload, key="k")
        shop.send("Typed", 1, key="k")
    large = orjson.dumps({"name": "Typed", "data": {"number": 2, "text": "x" * (4 << 20)}})
    shop.send_raw(large, key="k")
    shop.send("Nobody")
    assert shop.wait_for(len(BAD) + 1) == [1] * len(BAD) + [2]
    letters = shop.dead(len(BAD))
    assert sorted(letter.data() for letter in letters) == sorted(BAD)
    for letter in letters:
        found = letter.properties()
        assert found["dead-letter-reason"]
        assert "secret" not in found["dead-letter-reason"]
        assert found["dead-letter-attempts"] == "1"
        assert found["dead-letter-first-failure"]
        assert letter.partition_key() == "k"


def test_messages_that_cannot_even_be_read_become_dead_letters(shop: Shop) -> None:
    """Times that are no dates, giant positions, names of our own properties, 5 MiB of poison."""
    worker = shop.worker()
    worker.wait_for("Consuming ")
    payload = orjson.dumps({"name": "Counted", "data": {"number": 1}})
    shop.producer.send(payload, event_timestamp=1_764_000_000_000_000, partition_key="k")
    shop.producer.send(payload, properties={"position": "9" * 5000}, partition_key="k")
    strange = {"redrive-handler": "shop.nobody", "dead-letter-topic": "no topic/at all"}
    shop.producer.send(payload, properties=strange, partition_key="k")
    chunked = shop.site.pulsar.create_producer(shop.site.topic, chunking_enabled=True)
    chunked.send(b"x" * (6 << 20), partition_key="k")
    shop.send("Counted", 2, key="k")
    assert shop.wait_for(4) == [1, 1, 1, 2]
    (letter,) = shop.dead(1)
    assert letter.data() == b"x" * (6 << 20)
    assert "again in" not in worker.text()


def test_a_handler_that_ends_its_worker_is_given_up(shop: Shop) -> None:
    """Its event is a dead letter after as many workers as it has attempts; the others go on."""
    shop.send("Crash", key="k")
    for _ in range(2):
        assert shop.worker().exit_code() == 7
    shop.worker()
    shop.send("Counted", 1, key="k")
    assert shop.wait_for(1) == [1]
    (letter,) = shop.dead(1)
    assert "worker ended 2 times" in letter.properties()["dead-letter-reason"]


def test_what_a_driver_quotes_is_shown_nowhere(shop: Shop) -> None:
    """MongoDB's errors hold whole documents; log, dead letter and listing name kind and code."""
    worker = shop.worker()
    shop.send("Swallow", "private", key="k")
    (letter,) = shop.dead(1)
    assert "BulkWriteError" in letter.properties()["dead-letter-reason"]
    worker.wait_for("BulkWriteError")
    listed = shop.command("dead-letters", "list", "--json")
    for text in (worker.text(), repr(letter.properties()), listed):
        assert "private" not in text


def test_a_redriven_event_whose_handler_is_gone_is_kept(shop: Shop) -> None:
    """It becomes a dead letter again, and is not acknowledged unseen."""
    worker = shop.worker()
    worker.wait_for("Consuming ")
    back = shop.site.pulsar.create_producer(f"{shop.site.topic}-test-REDRIVE")
    payload = orjson.dumps({"name": "Counted", "data": {"number": 1}})
    asked = {"redrive-handler": "shop.renamed", "dead-letter-topic": shop.site.topic}
    back.send(payload, properties={"id": "e1", **asked})
    (letter,) = shop.dead(1)
    assert "There is no handler 'shop.renamed' here" in letter.properties()["dead-letter-reason"]


def test_ten_thousand_poison_messages_hold_up_nothing(shop: Shop) -> None:
    """All of them are set aside, and the log stays short."""
    for number in range(10_000):
        shop.producer.send_async(b"%d is no event" % number, None, partition_key="k")
    shop.producer.flush()
    shop.send("Counted", 1, key="k")
    worker = shop.worker()
    assert shop.wait_for(1, seconds=60) == [1]
    letters = shop.dead(10_000)
    assert [m.data() for m in letters] == [b"%d is no event" % n for n in range(10_000)]
    assert worker.text().count("dead letter") < 100


def test_messages_of_other_producers_have_an_id_all_the_same(shop: Shop) -> None:
    """Without an id it is the place in the topic; a very long one is remembered by its hash."""
    shop.worker()
    payload = orjson.dumps({"name": "Counted", "data": {"number": 1}})
    place = shop.producer.send(payload)
    for _ in range(2):
        shop.producer.send(payload, properties={"id": "x" * 2000})
    shop.send("Counted", 2)
    assert sorted(shop.wait_for(3)) == [1, 1, 2]
    seen = {row["event"] for row in shop.site.database["seen"].find({"number": 1})}
    assert seen == {
        f"{shop.site.topic}:{place.ledger_id()}:{place.entry_id()}:-1",
        "x" * 2000,
    }


def test_a_pattern_of_topics(shop: Shop) -> None:
    """One subscription reads all topics whose names fit, but not its own dead letters of them."""
    topics = [f"{shop.site.topic}-{name}" for name in ("north", "south")]
    payload = orjson.dumps({"name": "Both", "data": {"number": 1}})
    for topic in topics:
        shop.site.pulsar.create_producer(topic).send(payload, properties={"id": topic})
        # One that is made later is found within a minute, which is long for a test.
        shop.site.pulsar.create_producer(f"{topic}-test-REDRIVE")
    shop.worker(SHOP_TOPICS=f"re:{shop.site.topic}-.*")
    shop.wait_for(2)
    assert sorted(row["event"] for row in shop.site.database["seen"].find()) == topics
    north, south = (shop.site.subscribe("watch", f"{topic}-test-DLQ") for topic in topics)
    shop.site.receive(south, 1)
    shop.site.receive(north, 1)
    shop.site.database["mended"].insert_one({})
    redriven = shop.command("dead-letters", "redrive", "--topic", topics[0].partition("://")[2])
    assert redriven == "1 put back, 0 left.\n"
    wait_until(lambda: shop.seen("broken") == [1], description="it is handled")
    assert shop.site.receive(north, 0) == []


def test_failures_are_retried_in_order_and_given_up(shop: Shop) -> None:
    """A key waits behind its failing event, other keys go on; what fails for good is set aside."""
    shop.worker()
    shop.send("Flaky", 1, key="a")
    shop.send("Flaky", 2, key="a")
    shop.send("Counted", 3, key="b")
    for name in ("Broken", "Rejected", "GivenUp", "Exit"):
        shop.send(name, 9, key=name)
    shop.send("Odd", 4, key="d")
    shop.wait_for(4)
    assert shop.seen("flaky") == [1, 2]
    assert shop.seen("note") == [3]
    assert shop.seen("odd") == [4]
    assert shop.seen("broken") == []
    found = {letter.properties()["dead-letter-handler"]: letter for letter in shop.dead(4)}
    attempts = {n: m.properties()["dead-letter-attempts"] for n, m in found.items()}
    assert attempts == {
        "shop.broken": "2",
        "shop.rejected": "1",
        "shop.given_up": "1",
        "shop.exit": "2",
    }
    assert "not wanted" in found["shop.rejected"].properties()["dead-letter-reason"]


def test_a_failing_handler_does_not_run_its_sibling_again_and_is_redriven_alone(
    shop: Shop,
) -> None:
    """Each handler has its own attempts; a redrive, done twice, applies the failed one once."""
    worker = shop.worker()
    event_id = shop.send("Both", 5, key="k")
    (letter,) = shop.dead(1)
    assert letter.properties()["dead-letter-handler"] == "shop.broken"
    assert shop.seen() == [5]
    listed = [
        orjson.loads(line)
        for line in shop.command("dead-letters", "list", "--json").split("\n")
        if line
    ]
    assert [(entry["id"], entry["handler"], entry["name"]) for entry in listed] == [
        (event_id, "shop.broken", "Both")
    ]
    assert "number" not in shop.command("dead-letters", "list")

    shop.site.database["mended"].insert_one({})
    assert shop.command("dead-letters", "redrive", "--name", "Other") == "0 put back, 1 left.\n"
    assert shop.command("dead-letters", "redrive") == "1 put back, 0 left.\n"
    shop.wait_for(1, "broken")
    assert shop.command("dead-letters", "redrive") == "0 put back, 0 left.\n"
    again = shop.site.pulsar.create_producer(f"{shop.site.topic}-test-REDRIVE")
    again.send(
        letter.data(),
        properties={"id": event_id, "redrive-handler": "shop.broken"},
        partition_key="k",
    )
    shop.send("Counted", 6)
    shop.wait_for(1, "broken")
    wait_until(lambda: 6 in shop.seen(), description="a later event")
    assert (shop.seen("note"), shop.seen("broken")) == ([5, 6], [5])
    assert worker.stop() == 0


def test_an_event_sent_twice_is_applied_once(shop: Shop) -> None:
    """The inbox recognises ids; a message of a stranger is known by its place."""
    shop.worker()
    for number in range(20):
        event_id = shop.send("Counted", number, key="k")
        shop.send("Counted", number, key="k", event_id=event_id)
    shop.producer.send(orjson.dumps({"name": "Counted", "data": {"number": 99}}))
    long_id = "x" * 5000
    shop.send("Counted", 100, key="k", event_id=long_id)
    shop.send("Counted", 100, key="k", event_id=long_id)
    shop.send("Counted", 101, key="k")
    shop.wait_for(23)
    assert sorted(shop.seen()) == [*range(20), 99, 100, 101]
    assert shop.seen(key="k") == [*range(20), 100, 101]


def test_killed_workers_apply_everything_once_in_order(shop: Shop) -> None:
    """Two workers, one killed in the middle: each event once, each key in order."""
    workers = [shop.worker(), shop.worker()]
    for worker in workers:
        worker.wait_for("Consuming ")
    keys = [f"k{n}" for n in range(20)]
    for number in range(600):
        payload = orjson.dumps({"name": "Counted", "data": {"number": number}})
        key = keys[number % 20]
        properties = {"id": f"e{number}"}
        shop.producer.send_async(payload, None, properties=properties, partition_key=key)
    shop.producer.flush()
    shop.wait_for(100)
    workers[0].kill()
    shop.wait_for(600, seconds=60)
    for n, key in enumerate(keys):
        assert shop.seen(key=key) == list(range(n, 600, 20))


def test_term_lets_handlers_finish_and_hands_the_rest_back(shop: Shop) -> None:
    """What runs is finished and acknowledged, what waits goes to the next worker, exit code 0."""
    first = shop.worker(POSTROOM_CONCURRENCY="1")
    first.wait_for("Consuming ")
    shop.send("Slow", 1, key="k")
    for number in (2, 3):
        shop.send("Counted", number, key="k")
    tries = shop.site.database["tries"]
    wait_until(lambda: tries.count_documents({}) == 1, description="the slow one runs")
    assert first.stop() == 0
    assert shop.seen("slow") == [1]
    second = shop.worker()
    shop.wait_for(3)
    assert shop.seen() in ([1, 2, 3], [1, 3, 2])
    assert [row["n"] for row in tries.find()] == [1]
    assert second.stop() == 0
    assert "Traceback" not in first.text() + second.text()


def test_a_hanging_handler_is_reported_and_tried_again(shop: Shop) -> None:
    """The timeout is logged, the event handled by another thread, the worker still stops."""
    worker = shop.worker(POSTROOM_CONCURRENCY="1", POSTROOM_SHUTDOWN_SECONDS="2")
    shop.send("Hang", 1, key="k")
    shop.send("Counted", 2, key="other")
    worker.wait_for("ran past its timeout of 1 s")
    assert shop.wait_for(2) == [2, 1]
    assert worker.stop() == 0


AROUND = {
    "Received": "before the handler",
    "Prerun": "before the handler",
    "Stubborn": "while the event is validated",
    "Afterwards": "in what the handler does after its commit",
    "Postrun": "after the handler",
}


@pytest.mark.usefixtures("each_type")
def test_what_hangs_around_a_handler_is_named_and_tried_again(shop: Shop) -> None:
    """Receivers of signals, validators and callbacks have the same timeout; all is applied once."""
    worker = shop.worker(POSTROOM_SHUTDOWN_SECONDS="2")
    worker.wait_for("Consuming ")
    for number, name in enumerate(AROUND):
        shop.send(name, number, key="k")
    shop.send("Counted", 9, key="k")
    assert shop.wait_for(len(AROUND) + 1) == [0, 1, 2, 3, 4, 9]
    for where in AROUND.values():
        assert f"it hangs {where}" in worker.text() or f"hangs in Celery {where}" in worker.text()
    shop.dead(0)
    assert worker.stop() == 0


HANDLERS = {
    "Received": "shop.received",
    "Prerun": "shop.prerun",
    "Stubborn": "shop.validator",
    "Afterwards": "shop.afterwards",
}


def test_eight_that_hang_at_once_hold_up_nothing_and_are_given_up(shop: Shop) -> None:
    """More than there are threads, at each attempt: named, and good events go on meanwhile."""
    worker = shop.worker(
        POSTROOM_CONCURRENCY="4", POSTROOM_SHUTDOWN_SECONDS="2", SHOP_HANGS_ALWAYS="1"
    )
    worker.wait_for("Consuming ")
    for number, name in enumerate(list(HANDLERS) * 2):
        shop.send(name, number, key=f"{name}-{number}")
        shop.send("Counted", 100 + number, key=f"good-{number}")
    assert sorted(shop.wait_for(8, "note", seconds=10)) == list(range(100, 108))
    wait_until(lambda: "threads hang past" in shop.troubles(), description="the status says so")
    found = [letter.properties()["dead-letter-reason"] for letter in shop.dead(8)]
    for name in HANDLERS.values():
        assert sum(f"{name} ran past its timeout of 1 s: it hangs" in r for r in found) == 2, found
    assert "shop.validator while the event is validated" in shop.troubles()
    shop.send("Counted", 200)
    shop.wait_for(9, "note")
    assert worker.stop() == 0


def test_a_hanging_handler_holds_up_nothing_behind_it(shop: Shop) -> None:
    """With one thread and no further attempt, another takes the hanging one's place at once."""
    worker = shop.worker(POSTROOM_CONCURRENCY="1", POSTROOM_SHUTDOWN_SECONDS="2")
    for number in range(3):
        shop.send("Counted", number)
    shop.wait_for(3)
    shop.send("Stuck", key="k")
    shop.send("Counted", 3, key="other")
    assert shop.wait_for(4, seconds=10)[-1] == 3
    assert len(shop.dead(1)) == 1
    assert worker.stop() == 0


def test_a_revoked_task_becomes_a_dead_letter(shop: Shop) -> None:
    """Also one that was received and waits for a thread."""
    worker = shop.worker(POSTROOM_CONCURRENCY="1")
    shop.send("Slow", 1)
    wait_until(
        lambda: shop.site.database["tries"].count_documents({}) == 1,
        description="the first handler runs",
    )
    revoked = shop.send("Counted", 2)
    url = shop.site.environment["POSTROOM_REDIS_URL"]
    app = Celery(broker=url, backend=url)
    wait_until(
        lambda: any(
            task["id"] == revoked
            for tasks in (app.control.inspect(timeout=0.2).reserved() or {}).values()
            for task in tasks
        ),
        description="the second is received",
    )
    app.control.revoke(revoked, reply=True, timeout=1)
    (letter,) = shop.dead(1)
    assert letter.properties()["id"] == revoked
    assert "revoked" in letter.properties()["dead-letter-reason"]
    assert shop.wait_for(1) == [1]
    assert worker.stop() == 0


def test_batches_are_one_transaction_and_split_around_poison(shop: Shop) -> None:
    """A hundred events take a few tasks; the poison one is found and the others are applied."""
    for number in range(100):
        shop.send("Batched", number, key=f"k{number % 7}")
    shop.worker(POSTROOM_CONCURRENCY="1")
    seen = shop.wait_for(99)
    assert sorted(seen) == [n for n in range(100) if n != 13]
    for n in range(7):
        assert shop.seen(key=f"k{n}") == [m for m in range(n, 100, 7) if m != 13]
    (letter,) = shop.dead(1)
    assert orjson.loads(letter.data())["data"]["number"] == 13
    sizes = [batch["size"] for batch in shop.site.database["batches"].find()]
    assert len(sizes) < 20
    assert sum(sizes) == 99


def test_unknown_names_are_dead_letters_where_that_is_asked_for(shop: Shop) -> None:
    """POSTROOM_STRICT=1 loses nothing that no handler wants."""
    shop.worker(POSTROOM_STRICT="1")
    shop.send("Nobody")
    (letter,) = shop.dead(1)
    assert "No handler wants" in letter.properties()["dead-letter-reason"]


def test_redis_is_not_needed_for_consuming(shop: Shop, tmp_path: Path) -> None:
    """Its end stops neither the worker nor its events; afterwards Flower's events go on."""
    valkey = Valkey(tmp_path, port=free_port())
    valkey.start()
    valkey.wait_ready()
    try:
        worker = shop.worker(POSTROOM_REDIS_URL=valkey.url)
        shop.send("Counted", 1)
        shop.wait_for(1)
        valkey.kill()
        for number in range(2, 50):
            shop.send("Counted", number)
        shop.wait_for(49)
        valkey.start()
        valkey.wait_ready()
        assert worker.stop() == 0
    finally:
        valkey.stop()


def test_task_events_show_the_event_and_not_its_data(shop: Shop) -> None:
    """Flower is told name, id and attempt of the event, and its end; never the payload."""
    seen: list[dict[str, Any]] = []
    url = shop.site.environment["POSTROOM_REDIS_URL"]
    with (
        Celery("watcher", broker=url, set_as_current=False) as app,
        app.connection() as connection,
    ):
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        capture = receiver.itercapture(timeout=30)
        next(capture)
        shop.worker("consumer -E")
        event_id = shop.send("Counted", "private", key="k")
        both = shop.send("Both", "private", key="k")
        for _ in capture:
            if {"task-succeeded", "task-failed"} <= {e["type"] for e in seen}:
                break
    received = {e["uuid"]: e for e in seen if e["type"] == "task-received"}
    assert received.keys() == {event_id, f"{both}:shop.note", f"{both}:shop.broken"}
    assert received[event_id]["name"] == "shop.note"
    assert event_id in received[event_id]["kwargs"]
    assert "private" not in repr(seen)
    assert "task-retried" in {e["type"] for e in seen}


def test_one_subscription_of_several(pulsar_site: Site) -> None:
    """`-Q consumer.<subscription>` reads that one only."""
    shop = Shop(pulsar_site)
    worker = shop.worker("consumer.test")
    shop.send("Counted", 1)
    assert shop.wait_for(1) == [1]
    worker.signal(signal.SIGTERM)
    assert worker.exit_code() == 0
