"""A divided outbox on real Apache Pulsar: outbox partition i to topic partition i, in order."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import urllib.error
from typing import TYPE_CHECKING, Any

import orjson
import pulsar
import pytest
from bson import ObjectId

from postroom import DomainEvent, Outbox, errors, wire
from postroom.access import pulsar as pulsar_access
from postroom.operations import dividing
from postroom.operations.actions import Actor
from postroom.operations.journey import journey
from postroom.operations.provisioning import Provisioning
from postroom.operations.wiring import Wiring
from postroom.partitioning import DEFAULT_PARTITION, Partitioning
from postroom.relay import stand
from postroom.relay.relay import Relay
from postroom.relay.sending import upkeep
from postroom.relay.sharing.crew import Crew
from postroom.relay.state import State
from postroom.routing import Routing
from postroom.store.checkpoints import Checkpoints
from postroom.topics import Topic, topic_partition
from tests.relays import relaying, saved
from tests.shops import Shop
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.site import Site

pytestmark = pytest.mark.pulsar


class Counted(DomainEvent, name="divided.Counted", key="of"):
    """The number-th event of a key."""

    of: str
    number: int


def wired(site: Site, count: int, *, topics: Any = None, **settings: Any) -> Wiring:
    """Return how an application is installed whose outbox is divided."""
    found = site.settings(
        checkpoint_seconds=0.05, idle_checkpoint_seconds=0.5, partitions=count, **settings
    )
    routing = Routing(default=found.topic, topics=topics or {}, key=None, partitions=count)
    return Wiring(settings=found, routing=routing, consume={"plain": [found.topic]})


class Worker:
    """A relay worker's relays, in threads of this process."""

    def __init__(self, site: Site, count: int, **options: Any) -> None:
        wiring = self.wiring = wired(site, count, **options)
        self.crew = Crew(wiring.settings, wiring.routing, host=self, subscriptions=wiring.consume)
        self.relays: list[Relay] = []
        self.threads: list[threading.Thread] = []
        self.error: BaseException | None = None
        self._run(self._crew)

    def _crew(self) -> None:
        try:
            self.crew.run()
        except errors.ConfigurationError as error:
            self.error = error

    def _run(self, target: Callable[[], None]) -> None:
        def quietly() -> None:
            with contextlib.suppress(errors.ConfigurationError):
                target()

        self.threads.append(threading.Thread(target=quietly))
        self.threads[-1].start()

    def comes(self, relay: Relay) -> None:
        """Run it."""
        self.relays.append(relay)
        self._run(relay.run)

    def goes(self, relay: Relay) -> None:
        """Leave it alone; its thread ends."""

    def serves(self, count: int) -> bool:
        """Say whether so many of its relays relay."""
        return sum(r.status.state is State.RELAYING for r in self.relays) == count

    def stop(self) -> None:
        """Have all end."""
        self.crew.stop()
        for thread in self.threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in self.threads)


@contextlib.contextmanager
def working(site: Site, count: int, *, wait: bool = True, **options: Any) -> Iterator[Worker]:
    """Run a relay worker of a divided outbox."""
    worker = Worker(site, count, **options)
    try:
        if wait:
            wait_until(lambda: worker.serves(count), description="its relays", seconds=20)
        yield worker
    finally:
        worker.stop()


def events(keys: int, each: int, *, first: int = 0) -> list[Counted]:
    """Return events of so many keys, by turns."""
    numbers = range(first, first + each)
    return [Counted(of=f"key-{k}", number=n) for n in numbers for k in range(keys)]


def numbers(site: Site, topics: Sequence[str]) -> dict[str, list[int]]:
    """Return the numbers of each key in the order in which they stand on topics."""
    found: dict[str, list[int]] = {}
    for topic in topics:
        reader = site.pulsar.create_reader(topic, pulsar.MessageId.earliest)
        with contextlib.closing(reader):
            while reader.has_message_available():
                message = reader.read_next(10_000)
                data = orjson.loads(message.data())["data"]
                assert message.partition_key() == data["of"]
                found.setdefault(data["of"], []).append(data["number"])
    return found


def of_topic(topic: str, count: int) -> list[Topic]:
    """Name the topic partitions of a topic."""
    return [topic_partition(Topic(topic), index) for index in range(count)]


def relayed(site: Site, topics: Sequence[str], count: int) -> dict[str, list[int]]:
    """Wait until so many events stand on topics, and return their numbers."""

    def total() -> int:
        try:
            return sum(map(len, numbers(site, topics).values()))
        except pulsar.NotAllowedError:
            return 0  # the topic is not there yet

    wait_until(lambda: total() >= count, description=f"{count} events", seconds=30)
    return numbers(site, topics)


def test_each_key_is_on_the_topic_partition_of_its_hash_in_order(pulsar_site: Site) -> None:
    """The partitioned topic is made by the relay; each one has a lane of its own."""
    site, four = pulsar_site, Partitioning(count=4)
    with working(site, 4) as worker:
        outbox = Outbox(site.database, partitions=4)
        for first in range(0, 20, 5):
            event_id = outbox.publish(events(30, 5, first=first))[-1]
        relayed(site, of_topic(site.topic, 4), 600)
        for index, topic in enumerate(of_topic(site.topic, 4)):
            found = numbers(site, [topic])
            assert {four.of_key(key) for key in found} <= {index}
            assert all(each == list(range(20)) for each in found.values())
        (message,) = journey(site.database, worker.wiring, event_id).messages
        of_it = four.of_key("key-29")
        assert message.topic == topic_partition(Topic(site.topic), of_it)
    lanes = {
        row["partitionKey"]: [lane["topic"] for lane in row["lanes"]]
        for row in site.database[wire.CHECKPOINTS].find()
    }
    assert lanes == {f"default-{i}": [t] for i, t in enumerate(of_topic(site.topic, 4))}
    assert site.receive(site.subscribe(), 600)


def change(site: Site, wiring: Wiring, count: int) -> list[str]:
    """Have the outbox divided anew, and return what was said."""
    said: list[str] = []

    def asks(sentence: str) -> None:
        raise AssertionError(sentence)

    done = dividing.Change(site.database, wiring, count, told=said.append, asks=asks)
    done.run(actor=Actor(who="test", by="test"))
    return said


@contextlib.contextmanager
def consuming(
    site: Site, topic: str, got: dict[str, list[int]], *, behind: threading.Event | None = None
) -> Iterator[None]:
    """Read the subscription `plain` and note the numbers of each key as they come."""
    stopping, consumer = threading.Event(), site.subscribe(topic=topic)

    def run() -> None:
        if behind is None or behind.wait(20):
            _consume(consumer, stopping, got)
        consumer.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(20)


def _consume(
    consumer: pulsar.Consumer, stopping: threading.Event, got: dict[str, list[int]]
) -> None:
    while not stopping.is_set():
        with contextlib.suppress(pulsar.Timeout):
            message = consumer.receive(timeout_millis=200)
            data = orjson.loads(message.data())["data"]
            got.setdefault(data["of"], []).append(data["number"])
            consumer.acknowledge(message)


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 8), (8, 1), (1, 4)])
def test_the_number_is_changed_while_writers_write(
    pulsar_site: Site, before: int, after: int
) -> None:
    """Late writers are refused, new ones go on, no key loses its order on any way.

    A topic gets more topic partitions, never fewer and never its first: else another one follows.
    """
    site, topic = pulsar_site, pulsar_site.topic
    second = topic if 1 < before < after else f"{topic}-next"
    got: dict[str, list[int]] = {}
    wrote: list[int] = []
    both_wrote = threading.Event()

    def write(outbox: Outbox, first: int, most: int = 100_000) -> int:
        for number in range(first, first + most):
            try:
                outbox.publish(events(8, 1, first=number))
            except errors.OtherPartitioning:
                return number
        return first + most

    def go_on() -> None:
        wrote.append(write(outbox, 1))
        # What is written by the new number waits for those who have consumed nothing yet.
        wait_until(lambda: write(new, wrote[0], 1) > wrote[0], description="a new one writes")
        both_wrote.set()

    with working(site, before) as worker:
        outbox, new = (Outbox(site.database, partitions=count) for count in (before, after))
        outbox.publish(events(8, 1))
        writing = threading.Thread(target=go_on)
        writing.start()
        with consuming(site, topic, got, behind=both_wrote):
            change(site, worker.wiring, after)
        writing.join(20)
        total = wrote[0] + 20
        assert sum(map(len, got.values())) == 8 * wrote[0]
        with working(site, after, topic=second):
            wait_until(lambda: worker.error is not None, description="the old ones' end")
            assert f"has {after} outbox partition" in str(worker.error)
            for number in range(wrote[0] + 1, total):
                new.publish(events(8, 1, first=number))
            # A client looks for new topic partitions once a minute; this one is new.
            with consuming(site, second, got):
                wait_until(
                    lambda: sum(map(len, got.values())) >= 8 * total, description="all consumed"
                )
    assert got == {f"key-{k}": list(range(total)) for k in range(8)}
    admin = Provisioning(pulsar_access.of(site.settings()))
    log = Topic(second) if after == 1 else of_topic(second, after)[0]
    name = Partitioning(count=after, generation=2).names[0]
    assert set(admin.backlogs(log) or ()) == {"plain", f"postroom-relay-{name}"}


def test_what_is_written_before_the_new_relays_start_keeps_the_order_of_commits(
    pulsar_site: Site,
) -> None:
    """Not that of ids, in which another process's second event of a key may stand first."""
    site = pulsar_site
    with working(site, 2) as worker:
        Outbox(site.database, partitions=2).publish(events(1, 1))
        relayed(site, of_topic(site.topic, 2), 1)
        site.receive(site.subscribe(), 1)
        change(site, worker.wiring, 4)
    name = Partitioning(count=4, generation=2).names[Partitioning(count=4).of_key("key-0")]
    for number in range(1, 9):
        site.outbox.insert_one(
            {
                "_id": ObjectId(f"{100 - number:024x}"),
                "partitionKey": name,
                "key": "key-0",
                "data": {"name": "divided.Counted", "data": {"of": "key-0", "number": number}},
            }
        )
    with working(site, 4):
        assert relayed(site, of_topic(site.topic, 4), 9)["key-0"] == list(range(9))


@contextlib.contextmanager
def alone(site: Site) -> Iterator[Relay]:
    """Run the relay of an outbox that is not divided, until it may not go on."""
    wiring = wired(site, 1)
    relay = Relay(wiring.settings, wiring.routing)

    def run() -> None:
        with contextlib.suppress(errors.OtherPartitioning):
            relay.run()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield relay
    finally:
        relay.stop()
        thread.join(20)


def test_a_running_outbox_of_one_comes_to_four(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a topic of another name, since the old one stays whole; its rows go where they belong."""
    monkeypatch.setattr(stand, "UNDIVIDED_SECONDS", 0.5)
    site, second = pulsar_site, f"{pulsar_site.topic}-by-key"
    one = Outbox(site.database)
    with relaying(site) as relay:
        one.publish(events(6, 10))
        saved(site, 60)
    one.publish(events(6, 10, first=10))  # these wait
    with pytest.raises(errors.OtherPartitioning):
        Outbox(site.database, partitions=4).publish(events(1, 1))
    with alone(site) as relay:
        consumer = site.subscribe()
        site.receive(consumer, 120)
        change(site, wired(site, 1), 4)
        # It has left in order: who divides the outbox does not wait for it in vain.
        left = Checkpoints(site.database).of(DEFAULT_PARTITION)
        assert left is not None
        assert left.claim is not None
        assert left.claim.mutex is None
        wait_until(lambda: relay.status.state is State.STOPPED, description="the old one's end")
    with working(site, 4, topic=second):
        Outbox(site.database, partitions=4).publish(events(6, 10, first=20))
        found = relayed(site, of_topic(second, 4), 60)
    assert found == {f"key-{k}": list(range(20, 30)) for k in range(6)}
    assert numbers(site, [site.topic]) == {f"key-{k}": list(range(20)) for k in range(6)}


def test_a_change_that_was_interrupted_is_finished_by_the_next_call(pulsar_site: Site) -> None:
    """Wherever it was; no row is lost, and what is written meanwhile waits."""
    site = pulsar_site

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    outbox = Outbox(site.database, partitions=2)
    outbox.publish(events(4, 5))
    worker = Worker(site, 2)
    worker.stop()
    new = Outbox(site.database, partitions=4)
    for number in range(2):
        done = dividing.Change(site.database, worker.wiring, 4, told=interrupt, asks=interrupt)
        with pytest.raises(KeyboardInterrupt):
            done.run(actor=Actor(who="test", by="test"))
        with pytest.raises(errors.OtherPartitioning, match="is being changed"):
            outbox.publish(events(1, 1))
        new.publish(events(4, 1, first=5 + number))
    other = dividing.Change(site.database, worker.wiring, 8, told=print, asks=print)
    with pytest.raises(errors.ConfigurationError, match="call --to 4 again"):
        other.run(actor=Actor(who="test", by="test"))
    with working(site, 2) as worker:
        relayed(site, of_topic(site.topic, 2), 20)
        site.receive(site.subscribe(), 20)
        both = [threading.Thread(target=change, args=(site, worker.wiring, 4)) for _ in range(2)]
        for each in both:
            each.start()
        for each in both:
            each.join(30)
        wait_until(lambda: worker.error is not None, description="the old ones' end")
    assert dividing.divided(site.database, "default").partitioning.count == 4
    own = f"{wire.RELAY}default-0"
    site.subscribe(own, of_topic(site.topic, 2)[0]).close()  # as one that was killed leaves it
    assert change(site, worker.wiring, 4) == []
    backlogs = Provisioning(pulsar_access.of(site.settings())).backlogs
    assert own not in (backlogs(of_topic(site.topic, 2)[0]) or {own: 0})
    new.publish(events(4, 3, first=7))
    with working(site, 4):
        found = relayed(site, of_topic(site.topic, 4), 40)
    assert {key: sorted(each) for key, each in found.items()} == {
        f"key-{k}": list(range(10)) for k in range(4)
    }


def test_a_handler_that_publishes_is_refused_until_it_has_the_new_number(
    pulsar_site: Site,
) -> None:
    """It uses up no attempt meanwhile; then it is done once, and the change ends by itself."""
    site, second = pulsar_site, f"{pulsar_site.topic}-next"
    shop, before = Shop(site), dataclasses.replace(wired(site, 1), consume={"test": [site.topic]})
    site.subscribe("test").close()
    said: list[str] = []
    changing = threading.Thread(target=lambda: said.extend(change(site, before, 4)), daemon=True)
    with alone(site):
        Outbox(site.database).publish(
            [{"name": "Onward", "data": {"of": f"key-{n}", "number": n}} for n in range(2)]
        )
        changing.start()
        record = functools.partial(dividing.divided, site.database, "default")
        wait_until(lambda: record().next_is_written, description="that the next one is written")
        old = shop.worker()
        tried = site.database["tries"]
        wait_until(lambda: tried.count_documents({"n": {"$gt": 3}}) == 2, description="refusals")
        assert old.stop() == 0
        assert "is being changed from 1 outbox partition to 4" in old.text()
        assert changing.is_alive()
        assert shop.seen() == []
        shop.worker(POSTROOM_PARTITIONS="4").wait_for("Consuming ")
        changing.join(20)
    assert any("subscription test, for which 2 messages wait" in each for each in said)
    assert sorted(shop.seen("onward")) == [0, 1]
    with working(site, 4, topic=second):
        assert relayed(site, of_topic(second, 4), 2) == {"key-0": [0], "key-1": [1]}
    shop.dead(0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        ("", "has no topic partitions"),
        ("8", "has 8 topic partitions, and the outbox 4"),
        ("1", "has 1 topic partition, and the outbox 4.*update-partitioned-topic"),
    ],
)
def test_a_topic_of_another_number_is_refused_by_name(
    pulsar_site: Site, make: str, sentence: str
) -> None:
    """Unpartitioned, with more or with less: the worker ends with a sentence, nothing is sent."""
    site = pulsar_site
    site.admin("PUT", "/partitions" if make else "", body=make.encode() or None)
    with working(site, 4, wait=False) as worker:
        wait_until(lambda: worker.error is not None, description="a refusal", seconds=20)
        with pytest.raises(errors.ConfigurationError, match=sentence):
            raise worker.error or AssertionError
        assert site.topic in str(worker.error)


def test_a_function_that_names_such_a_topic_holds_up_its_rows_alone(pulsar_site: Site) -> None:
    """They are set aside by name; other topics are made with the right number and flow."""
    site, bad, good = pulsar_site, f"{pulsar_site.topic}-bad", f"{pulsar_site.topic}-good"
    site.admin("PUT", "/partitions", topic=bad, body=b"2")

    def route(name: str, _: Any) -> str | None:
        return {"Bad": bad, "Good": good}.get(name)

    with working(site, 4, topics=route):
        outbox = Outbox(site.database, partitions=4, key="of")
        for number in range(4):
            for name in ("Bad", "Good", "Any"):
                outbox.publish({"name": name, "data": {"of": f"k{number}", "number": 0}})
        found = relayed(site, [*of_topic(good, 4), *of_topic(site.topic, 4)], 8)
        assert found == {f"k{number}": [0, 0] for number in range(4)}
        quarantine = site.database[wire.QUARANTINE]
        wait_until(lambda: quarantine.count_documents({}) == 4, description="four set aside")
        assert all("has 2 topic partitions" in each["reason"] for each in quarantine.find())


def test_growth_ends_the_term_by_name_and_reorders_nothing(
    pulsar_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody adds topic partitions behind the outbox's back."""
    monkeypatch.setattr(upkeep, "LOOK_AGAIN_SECONDS", 0.5)
    site = pulsar_site
    with working(site, 2) as worker:
        Outbox(site.database, partitions=2).publish(events(4, 5))
        relayed(site, of_topic(site.topic, 2), 20)
        site.admin("POST", "/partitions", body=b"3")
        wait_until(
            lambda: any("has 3 topic partitions" in r.status.reason for r in worker.relays),
            description="a term's end by name",
        )
    assert numbers(site, of_topic(site.topic, 3)) == {f"key-{k}": list(range(5)) for k in range(4)}


def test_a_terminated_topic_partition_holds_up_its_outbox_partition_alone(
    pulsar_site: Site,
) -> None:
    """The others flow on, and its rows are not sent elsewhere."""
    site, two = pulsar_site, Partitioning(count=2)
    with working(site, 2):
        outbox = Outbox(site.database, partitions=2)
        outbox.publish(events(8, 2))
        relayed(site, of_topic(site.topic, 2), 16)
        with contextlib.suppress(urllib.error.HTTPError):
            site.admin("POST", "/terminate", topic=of_topic(site.topic, 2)[0])
        for number in range(2, 6):
            outbox.publish(events(8, 1, first=number))
        ours = {f"key-{k}" for k in range(8) if two.of_key(f"key-{k}") == 1}
        found = relayed(site, of_topic(site.topic, 2)[1:], 6 * len(ours))
        assert found == {key: list(range(6)) for key in ours}
