"""`dead-letters list` and `redrive`: what was asked for, all of it, and each letter once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import orjson
import pytest

from postroom import inbox
from tests.commands import run
from tests.shops import Shop
from tests.waiting import wait_until

if TYPE_CHECKING:
    from click.testing import Result

    from tests.site import Site

ROOT = Path(__file__).parents[2]
HOUR = 3600.0


@pytest.fixture
def shop(site: Site) -> Shop:
    """Lend a shop on each broker."""
    return Shop(site)


@pytest.fixture
def real_shop(pulsar_site: Site) -> Shop:
    """Lend a shop on real Pulsar."""
    return Shop(pulsar_site)


def letter(
    shop: Shop, number: int, *, topic: str | None = None, at: str | None = None, **more: str
) -> None:
    """Store a dead letter of the shop, as a worker would."""
    origin = topic or shop.site.topic
    producer = shop.site.pulsar.create_producer(at or f"{origin}-test-DLQ")
    properties = {
        "id": f"e{number}",
        "dead-letter-topic": origin,
        "dead-letter-subscription": "test",
        "dead-letter-handler": "shop.broken",
        "dead-letter-reason": "ValueError: broken",
        "dead-letter-attempts": "2",
        **more,
    }
    payload = orjson.dumps({"name": "Broken", "data": {"number": number}})
    producer.send(payload, properties=properties)
    producer.close()


def command(shop: Shop, *words: str, **variables: str) -> Result:
    """Run a `dead-letters` command, which may fail."""
    return run(shop.site, "dead-letters", *words, code=None, **variables)


def listed(shop: Shop, *words: str, **variables: str) -> list[str]:
    """Return the ids of the letters that are listed."""
    done = command(shop, "list", "--json", *words, **variables)
    assert done.exit_code == 0, done.stderr
    return [orjson.loads(line)["id"] for line in done.stdout.splitlines()]


def test_a_letter_that_was_stored_more_than_once_is_one(real_shop: Shop) -> None:
    """Its copies are listed once, put back once and taken off; what differs is another letter."""
    shop = real_shop
    shop.site.subscribe("dead-letters", f"{shop.site.topic}-test-DLQ").close()
    back = shop.site.subscribe("test", f"{shop.site.topic}-test-REDRIVE")
    for number in (1, 1, 2, 1):
        letter(shop, number)
    letter(shop, 1, **{"dead-letter-handler": "shop.other"})
    letter(shop, 2)
    assert listed(shop) == ["e1", "e2", "e1"]
    done = inbox.redrive(shop.site.settings(), where=lambda letter: letter.id == "e1")
    assert (done.put_back, done.copies, done.left) == (2, 2, 2)
    assert listed(shop) == ["e2"]
    done = inbox.redrive(shop.site.settings())
    assert (done.put_back, done.copies, done.left) == (1, 1, 0)
    came = [message.properties() for message in shop.site.receive(back, 3)]
    handlers = [(found["id"], found["redrive-handler"]) for found in came]
    assert handlers == [("e1", "shop.broken"), ("e1", "shop.other"), ("e2", "shop.broken")]
    assert listed(shop) == []


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_operators_clock_decides_nothing(shop: Shop, hours: int) -> None:
    """An hour behind or ahead, all letters are listed, and each is put back once."""
    shop.site.subscribe("dead-letters", f"{shop.site.topic}-test-DLQ").close()
    worker = shop.worker()
    worker.wait_for("Consuming ")
    for number in range(5):
        letter(shop, number)
    settings = shop.site.settings()
    with mock.patch("time.time", return_value=time.time() + hours * HOUR):
        assert [found.id for found in inbox.list_dead(settings)] == [f"e{n}" for n in range(5)]
        done = inbox.redrive(settings)
    assert (done.put_back, done.left) == (5, 0)
    # They have failed again meanwhile, and wait for the next one.
    wait_until(lambda: len(listed(shop)) == 5, description="all are dead letters again")


@pytest.mark.usefixtures("each_type")
def test_what_fails_again_at_once_is_put_back_once(real_shop: Shop) -> None:
    """A redrive ends where the topic ended when it began, however fast letters come back."""
    real_shop.site.subscribe("dead-letters", f"{real_shop.site.topic}-test-DLQ").close()
    worker = real_shop.worker()
    worker.wait_for("Consuming ")
    for number in range(30):
        letter(real_shop, number, **{"dead-letter-handler": "shop.gone"})
    done = inbox.redrive(real_shop.site.settings(), rate_per_second=20)
    assert done.put_back == 30
    wait_until(lambda: len(listed(real_shop)) == 30, description="all are dead letters again")


def test_topics_that_share_a_dead_letter_topic_are_told_apart(real_shop: Shop) -> None:
    """Each topic's letters are listed and put back alone; the others' are left, and mentioned."""
    shop, dead = real_shop, f"public/default/{real_shop.site.name}-dead"
    other = f"{shop.site.topic}-other"
    shop.site.subscribe("dead-letters", dead).close()
    for number in range(4):
        letter(shop, number, topic=other if number % 2 else None, at=dead)
    letter(shop, 9, at=dead, **{"dead-letter-subscription": "billing"})
    shared = {"POSTROOM_DEAD_LETTER_TOPIC": dead}
    assert listed(shop, **shared) == ["e0", "e2"]
    assert listed(shop, "--topic", other, **shared) == ["e1", "e3"]
    assert listed(shop, "--subscription", "billing", **shared) == ["e9"]
    text = command(shop, "list", **shared).stdout
    assert f"Beside them 2 of --topic {other} --subscription test" in text
    done = command(shop, "redrive", "--topic", other, **shared)
    assert done.stdout == "2 put back, 3 left.\n"
    with_worker = shop.site.subscribe("look", f"{other}-test-REDRIVE")
    assert [m.properties()["id"] for m in shop.site.receive(with_worker, 2)] == ["e1", "e3"]
    assert listed(shop, **shared) == ["e0", "e2"]


def test_a_topic_partition_has_the_names_of_its_topic(real_shop: Shop) -> None:
    """Worker, list and redrive agree on where its dead letters are and come back."""
    shop = real_shop
    topic = f"{shop.site.topic}-parts"
    shop.site.admin("PUT", "/partitions", topic=topic, body=b"2")
    part = f"{topic}-partition-0"
    shop.producer = shop.site.pulsar.create_producer(part)
    shop.worker(SHOP_TOPICS=part)
    event_id = shop.send("Broken", 7)
    wait_until(lambda: shop.status().get("dead_letters") == 1, description="it is given up")
    for name in (part, topic):
        assert listed(shop, "--topic", name) == [event_id]
    shop.site.database["mended"].insert_one({})
    assert command(shop, "redrive", "--topic", part).stdout == "1 put back, 0 left.\n"
    assert shop.wait_for(1, "broken") == [7]


@pytest.mark.usefixtures("each_type")
def test_what_comes_back_before_there_is_a_consumer_is_not_lost(real_shop: Shop) -> None:
    """The subscription is made first, and a consumer by pattern finds the topic."""
    shop = real_shop
    shop.site.subscribe("dead-letters", f"{shop.site.topic}-test-DLQ").close()
    letter(shop, 1)
    assert command(shop, "redrive").stdout == "1 put back, 0 left.\n"
    shop.site.database["mended"].insert_one({})
    shop.worker(SHOP_TOPICS=f"re:{shop.site.topic}.*")
    assert shop.wait_for(1, "broken", seconds=45) == [1]


def test_what_a_stranger_wrote_is_shown_as_it_is(shop: Shop) -> None:
    """Mark-up, colours, cursor movements and new lines in ids, handlers, names and reasons."""
    shop.site.subscribe("dead-letters", f"{shop.site.topic}-test-DLQ").close()
    bad = {
        "id": "[red]e1[/red]\x1b[2J",
        "dead-letter-handler": "[bold]h\rx",
        "dead-letter-reason": "bad path [/etc/foo]\n\x1b]0;title\x07 \u202egnol\x9b1m",
        "dead-letter-attempts": "²",
    }
    letter(shop, 1, **bad)
    producer = shop.site.pulsar.create_producer(f"{shop.site.topic}-test-DLQ")
    producer.send(b'{"name": "[link=x]\\u001b[31m", "data": {}}')
    done = command(shop, "list")
    assert done.exit_code == 0, done.stderr
    for text in ("[red]e1[/red]\\x1b[2J", "bad path [/etc/foo]\\n", "[bold]h\\rx", "[link=x]\\x1b"):
        assert text in done.stdout
    as_json = command(shop, "list", "--json").stdout
    assert orjson.loads(as_json.splitlines()[0])["reason"] == bad["dead-letter-reason"]
    for text in (done.stdout, as_json):
        assert not set(text) & set("\x1b\r\x07\x9b\u202e")


def test_letters_are_listed_as_often_as_they_are_asked_for(shop: Shop) -> None:
    """Whoever made their subscription; the embedded broker gave them out twice behind `setup`."""
    run(shop.site, "outbox", "setup")
    letter(shop, 1)
    letter(shop, 2)
    for _ in range(4):
        assert listed(shop) == ["e1", "e2"]
    assert command(shop, "discard", "--all", "--yes").stdout == "2 discarded.\n"
    assert listed(shop) == []


def test_a_topic_without_dead_letters_has_none_and_gets_none(real_shop: Shop) -> None:
    """Looking makes no topic; what is misspelt is refused by name."""
    shop = real_shop
    assert listed(shop, "--topic", "public/default/misspelt") == []
    assert command(shop, "list").stdout.endswith("0 dead letters\n")
    assert command(shop, "redrive").stdout == "0 put back, 0 left.\n"
    assert orjson.loads(command(shop, "redrive", "--json").stdout)["put_back"] == 0
    names = orjson.loads(shop.site.admin("GET", "", topic="public/default"))
    assert not [name for name in names if "misspelt" in name]
    for words in (
        ("list", "--topic", "orders"),
        ("list", "--topic", f"{shop.site.topic}-test-DLQ"),
        ("list", "--reason", "["),
        ("list", "--limit", "0"),
        ("redrive", "--rate", "0"),
    ):
        done = command(shop, *words)
        assert done.exit_code != 0
        assert "Traceback" not in done.stderr


def test_what_cannot_be_put_back_is_left_and_named(real_shop: Shop) -> None:
    """The redrive topic takes nothing: the letters stay, and the command says why and fails."""
    shop = real_shop
    back = f"{shop.site.topic}-test-REDRIVE"
    shop.site.subscribe("dead-letters", f"{shop.site.topic}-test-DLQ").close()
    shop.site.subscribe("test", back).close()
    shop.site.admin("POST", "/terminate", topic=back)
    for number in range(2):
        letter(shop, number)
    done = command(shop, "redrive")
    assert done.exit_code == 1
    assert done.stdout == "0 put back, 2 left.\n"
    assert f"could not be put back on {back} (TopicTerminated" in done.stderr
    assert listed(shop) == ["e0", "e1"]


def test_somebody_else_at_the_same_letters_is_said(real_shop: Shop) -> None:
    """Two listings of one topic do not share its letters between them."""
    shop = real_shop
    holder = shop.site.subscribe("dead-letters", f"{shop.site.topic}-test-DLQ")
    done = command(shop, "list")
    assert done.exit_code == 1
    assert "Somebody else is listing or redriving" in done.stderr
    holder.close()
