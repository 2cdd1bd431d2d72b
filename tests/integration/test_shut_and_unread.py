"""Topics that have some of the rows that are set aside for them, on real Apache Pulsar."""

from __future__ import annotations

import contextlib
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from postroom import wire
from tests.integration.test_refusals import id_of, quarantined, sized
from tests.relays import relaying, saved
from tests.stalling import stalling
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postroom.relay.relay import Relay
    from tests.site import Site

LOST = {"_data": "82" + "0" * 60}
# How a topic is shut: it can be read, or not even that while another consumer is there.
QUOTA = {"limitSize": 1, "policy": "producer_exception"}
POLICIES: dict[str, tuple[str, Any]] = {
    "read": ("backlogQuota", QUOTA),
    "unread": ("maxConsumersPerTopic", 1),
}
EACH_WAY = pytest.mark.parametrize(("way", "restart"), [("read", False), ("unread", True)])


def made(number: int, size: int = 10) -> dict[str, Any]:
    """Return a row of about so many bytes that goes to the topic that is shut."""
    found = sized(number, size)
    found["data"]["name"] = "B"
    return found


class Second:
    """A topic in a namespace of its own that is shut and opened again."""

    def __init__(self, site: Site, way: str) -> None:
        namespace = f"public/{site.name}"
        self.topic = f"persistent://{namespace}/second"
        policy, self._value = POLICIES[way]
        self._path = f"namespaces/{namespace}/{policy}"
        self._site = site
        site.admin_namespace(namespace, "deduplication", value=True)
        self._slow = site.subscribe("slow", self.topic)

    def shut(self) -> None:
        """Have it take nothing from a producer that comes now."""
        self._ask("POST", json.dumps(self._value).encode())

    def open(self) -> None:
        """Have it take everything again."""
        self._ask("DELETE", None)

    def _ask(self, method: str, body: bytes | None) -> None:
        self._site.admin_at(method, self._path, body)
        self._site.admin("PUT", "/unload", topic=self.topic)

    def take(self, rows: list[dict[str, Any]], *, first: int) -> None:
        """Store what a relay sent before it was killed, by their numbers from one on."""
        relays = self._site.pulsar.create_producer(
            self.topic, producer_name="postroom-relay-default", block_if_queue_full=True
        )
        for place, each in enumerate(rows, first):
            relays.send_async(
                json.dumps(each["data"]).encode(),
                lambda *_: None,
                properties={"id": id_of(each), "position": str(place)},
                sequence_id=place,
            )
        relays.flush()
        relays.close()

    def stored(self, *, last: list[str]) -> list[str]:
        """Return the ids of all that it has once it has the last one."""
        wait_until(
            lambda: self._site.stored(self.topic)[-1:] == last, description="last", seconds=60
        )
        return self._site.stored(self.topic)

    @contextlib.contextmanager
    def meanwhile(self, *, restart: bool, topics: Any = None) -> Iterator[Relay]:
        """Run a relay that finds the topic shut; it is open behind the block, and for the next."""
        routed = topics or {"B": self.topic}
        self.shut()
        with contextlib.ExitStack() as running:
            relay = running.enter_context(relaying(self._site, topics=routed))
            yield relay
            assert self.topic in relay.status.snapshot()["topics_shut"]
            if restart:
                running.close()
                self.open()
                running.enter_context(relaying(self._site, topics=routed))
            else:
                self.open()
            self.again = self._site.insert(1, name="B", first=9_999)
            self.stored(last=self.again)


def scanned(site: Site) -> None:
    """Wait until the relay has scanned, from lost history or the beginning on."""
    wait_until(
        lambda: (
            site.checkpoint.get("resumeToken") not in (None, LOST) and "scan" not in site.checkpoint
        ),
        description="the scan's end",
    )


@EACH_WAY
def test_what_was_refused_in_its_turn_never_comes_out_of_order(
    pulsar_site: Site, way: str, *, restart: bool
) -> None:
    """The relay was killed, and its topic is shut before the next one has judged the row."""
    site, second = pulsar_site, Second(pulsar_site, way)
    with relaying(site, topics={"B": second.topic}):
        written = site.insert(1, name="B")
        site.insert(1)
        saved(site, 2)
    rows = [made(0), large := made(1, 60_000), *(made(n) for n in range(2, 6))]
    site.outbox.insert_many(rows)
    there = [each for each in rows if each is not large]
    second.take(there, first=3)
    with second.meanwhile(restart=restart):
        saved(site, 8)
    assert list(quarantined(site)) == [id_of(large)]
    assert "did not take the event" in quarantined(site)[id_of(large)]
    assert site.stored(second.topic) == [*written, *map(id_of, there), *second.again]


@EACH_WAY
def test_history_that_is_lost_meanwhile_doubles_and_reorders_nothing(
    pulsar_site: Site, way: str, *, restart: bool
) -> None:
    """The scan's rows are there already, but for one that was refused and one that is new."""
    site, second = pulsar_site, Second(pulsar_site, way)
    with relaying(site, topics={"B": second.topic}):
        written = site.insert(5, name="B")
        site.insert(1)
        saved(site, 6)
    rows = [made(0), large := made(1, 60_000), *(made(n) for n in range(2, 6))]
    site.outbox.insert_many([*rows, new := made(6)])
    there = [each for each in rows if each is not large]
    second.take(there, first=7)
    # As a term leaves it that ends while they are under way.
    noted = {"topic": second.topic, "ids": [id_of(each) for each in rows], "position": 13}
    lost = {"resumeToken": LOST, "intents": {"0": noted}}
    site.database[wire.CHECKPOINTS].update_one({}, {"$set": lost})
    with second.meanwhile(restart=restart):
        scanned(site)
    assert list(quarantined(site)) == [id_of(large)]
    stored = [*written, *map(id_of, there), id_of(new), *second.again]
    assert site.stored(second.topic) == stored


@pytest.mark.parametrize("size", [10, 60_000], ids=["small", "large"])
def test_a_row_that_is_committed_late_is_sent_however_a_scan_numbers_it(
    pulsar_site: Site, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """Its id is older than that of a row which the topic has, and it was never sent."""
    site, second = pulsar_site, Second(pulsar_site, "unread")
    late, there = made(0, size), made(1)
    with relaying(site, topics={"B": second.topic}):
        written = site.insert(1, name="B")
        site.insert(1)
        site.outbox.insert_one(there)
        saved(site, 3)
    site.outbox.insert_one(late)
    site.database[wire.CHECKPOINTS].update_one({}, {"$set": {"resumeToken": LOST}})
    with second.meanwhile(restart=False):
        scanned(site)
        assert id_of(late) in quarantined(site)
    assert not quarantined(site)
    assert site.stored(second.topic) == [*written, id_of(there), id_of(late), *second.again]
    assert "comes late" not in caplog.text


@EACH_WAY
def test_a_checkpoint_that_is_removed_meanwhile_doubles_nothing(
    pulsar_site: Site, way: str, *, restart: bool
) -> None:
    """Not even its topic's name is known then."""
    site, second = pulsar_site, Second(pulsar_site, way)
    with relaying(site, topics={"B": second.topic}):
        written = site.insert(5, name="B")
        site.insert(1)
        saved(site, 6)
    site.database[wire.CHECKPOINTS].delete_many({})
    with second.meanwhile(restart=restart):
        scanned(site)
    assert not quarantined(site)
    assert site.stored(second.topic) == [*written, *second.again]


def test_what_the_topic_has_is_let_go_of_before_anything_is_sent_there(pulsar_site: Site) -> None:
    """A relay that is killed while they return would no longer see what stands before its mark."""
    site, second = pulsar_site, Second(pulsar_site, "unread")
    waiting: list[set[str]] = []

    def topics(_: str, data: Any) -> str | None:
        if data["number"] == late["data"]["data"]["number"]:
            waiting.append(set(quarantined(site)))
        return second.topic if data["number"] else None

    rows = [made(n + 1) for n in range(1500)]
    late = rows[700]
    with relaying(site, topics=topics):
        site.insert(1)
        written = site.insert(1, name="B", first=1)
        saved(site, 2)
    site.outbox.insert_many(rows)
    there = [each for each in rows if each is not late]
    # Larger ones were taken: it was not refused, but never sent.
    there[-1]["data"]["data"]["text"] = "x" * 100
    second.take(there, first=3)
    with second.meanwhile(restart=False, topics=topics):
        saved(site, 1502)
        assert len(quarantined(site)) == len(rows)
        waiting.clear()
    assert id_of(late) in waiting[0]
    assert waiting[0].isdisjoint(map(id_of, there))
    stored = [*written, *map(id_of, there), id_of(late), *second.again]
    assert site.stored(second.topic) == stored
    assert not quarantined(site)


def test_a_relay_that_was_frozen_sets_nothing_aside_for_the_one_that_replaced_it(
    pulsar_site: Site, tmp_path: Path
) -> None:
    """It still takes a topic for shut that is open by now, and has got its row."""
    site, second = pulsar_site, Second(pulsar_site, "read")

    def to_second(**data: Any) -> dict[str, Any]:
        found = sized(0, 10)
        found["data"]["data"] |= {"topic": second.topic, **data}
        return found

    rows = [to_second(), to_second(stall="first"), to_second()]
    with relaying(site, topics=stalling(tmp_path)):
        site.outbox.insert_one(rows[0])
        site.insert(1)
        saved(site, 2)
    second.shut()
    frozen = site.start(f"python -m tests.stalling {tmp_path}")
    frozen.wait_for("all else flows")
    site.outbox.insert_one(rows[1])
    wait_until((tmp_path / "first.met").exists, description="it stands still")
    frozen.signal(signal.SIGSTOP)
    second.open()
    (tmp_path / "first").touch()
    with relaying(site, topics=stalling(tmp_path), wait=False):
        assert second.stored(last=[id_of(rows[1])]) == [*map(id_of, rows[:2])]
        saved(site, 3)
        frozen.signal(signal.SIGCONT)
        frozen.wait_for("taken over")
        frozen.kill()
    assert not quarantined(site)
    with relaying(site, topics=stalling(tmp_path)):
        site.outbox.insert_one(rows[2])
        assert second.stored(last=[id_of(rows[2])]) == [*map(id_of, rows)]
