"""Position, tail and checkpoint over logs made up by hypothesis, with a crash at every step.

The term, its lanes and its checkpoint store are the real ones. The log and the topics are in
memory, so that a crash can be put before any send, acknowledgement, read or checkpoint: what was
pending at the broker is then stored up to a point and lost behind it, as when a process is killed.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from unittest import mock

import pulsar
import pytest
from bson import ObjectId
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import errors as mongo

from postroom import errors, wire
from postroom.observation import Observer
from postroom.relay.outfit import Mandate, TermOptions
from postroom.relay.reading.batch import Batch
from postroom.relay.saving.saver import CheckpointPace
from postroom.relay.sending.tail import Tail, TailReader
from postroom.relay.standing import Standing
from postroom.relay.state import State
from postroom.relay.term import Term
from postroom.routing import Routing
from postroom.store.checkpoints import CheckpointStore, Point
from postroom.store.quarantine import Quarantine
from postroom.store.values import DEFAULT_PARTITION, ResumeToken
from tests.relays import inexperienced, lane_options
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from postroom.relay.reading.origin import Origin
    from postroom.store.checkpoints import Checkpoint
    from tests.site import Site

TOPICS = ("persistent://a/b/one", "persistent://a/b/two")
SECOND = timedelta(seconds=1)


class Crash(Exception):
    """The process is killed here."""


class Sent(NamedTuple):
    """A message, and its place in its batch."""

    message: Any
    place: int


@dataclass
class World:
    """A log, topics, and the step at which the process is killed."""

    log: Sequence[dict[str, Any]]
    dice: random.Random
    crash_at: int
    topics: dict[str, list[Sent]] = field(default_factory=lambda: {t: [] for t in TOPICS})
    pending: list[tuple[str, Sent, Any]] = field(default_factory=list)
    steps: int = 0
    readers: int = 0

    def step(self) -> None:
        """Come to a place where a crash may happen."""
        self.steps += 1
        if self.steps == self.crash_at:
            raise Crash

    def store(self, count: int) -> None:
        """Have the broker store so many pending messages, in order, and acknowledge them."""
        for _ in range(min(count, len(self.pending))):
            topic, message, stored = self.pending.pop(0)
            self.topics[topic].append(message)
            if stored is not None:
                stored(len(self.topics[topic]) - 1)

    def kill(self) -> None:
        """Lose the connection: some of what is pending was stored, the rest never will be."""
        kept = self.dice.randint(0, len(self.pending))
        for topic, message, _ in self.pending[:kept]:
            self.topics[topic].append(message)
        self.pending.clear()


def message_id(entry: int, place: int) -> Any:
    """Return the id of a topic's n-th message, which has a place in its batch."""
    return pulsar.MessageId(-1, 1, entry, place)


class Topic:
    """A producer as a lane uses it; it is also its own inner producer."""

    def __init__(self, world: World, topic: str) -> None:
        self._world = world
        self._topic = topic
        self._producer = self
        self._place = -1

    def is_connected(self) -> bool:
        """Say that it is; the broker works while the relay looks."""
        self._world.store(self._world.dice.randint(0, 2))
        return True

    def close_async(self, _: Any) -> None:
        """Do nothing."""

    def send_async(self, message: Any, stored: Any) -> None:
        """Queue a message; the broker may be quick or slow."""
        self._world.step()
        self._place += 1
        place, told = self._place, stored
        if stored is not None:
            # A burst is a batch, and its last message the one that is watched.
            self._place = -1

            def told(entry: int) -> None:
                stored(pulsar.Result.Ok, message_id(entry, place))

        self._world.pending.append((self._topic, Sent(message, place), told))
        if self._world.dice.random() < 0.3:
            self._world.store(self._world.dice.randint(0, 5))

    def last_sequence_id(self) -> int:
        """Say that there is no deduplication."""
        return -1

    def flush(self) -> None:
        """Do nothing: this broker takes messages one by one."""

    def close(self) -> None:
        """Do nothing: what is pending is kept or lost by kill()."""


class Reader:
    """A reader from a message on."""

    def __init__(self, world: World, topic: str, start: int) -> None:
        self._world = world
        self._messages = world.topics[topic]
        self._next = start

    def has_message_available(self) -> bool:
        """Say whether the end is not reached."""
        return self._next < len(self._messages)

    def read_next(self, _: int) -> Any:
        """Return the next message."""
        self._world.step()
        self._next += 1
        message, place = self._messages[self._next - 1]
        return Stored(message, message_id(self._next - 1, place))

    def is_connected(self) -> bool:
        """Say that it is."""
        return True

    def close(self) -> None:
        """Do nothing."""


class Stored:
    """A message as it is read back."""

    def __init__(self, message: Any, place: Any) -> None:
        self._message = message
        self._place = place

    def properties(self) -> dict[str, str]:
        """Return its properties."""
        return dict(self._message.properties())

    def data(self) -> bytes:
        """Return its payload."""
        return bytes(self._message.data())

    def partition_key(self) -> str:
        """Return its key, or none as an empty text."""
        return str(self._message.partition_key())

    def producer_name(self) -> str:
        """Return the name of the only producer there is."""
        return "relay"

    def message_id(self) -> Any:
        """Return its place."""
        return self._place


class Broker:
    """A Pulsar client as a term uses it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get_topic_partitions(self, topic: str) -> list[str]:
        """Say that there are none."""
        return [topic]

    def create_producer(self, topic: str, **_: Any) -> Topic:
        """Open a topic."""
        self._world.step()
        return Topic(self._world, topic)

    def subscribe(self, *_: Any, **__: Any) -> Any:
        """Let the relay have its own subscription, where nothing is deleted."""
        return mock.Mock()

    def create_reader(
        self, topic: str, start: Any, *, start_message_id_inclusive: bool = False, **_: Any
    ) -> Reader:
        """Read from the beginning, from a message on or from behind it, or the last one."""
        self._world.step()
        self._world.readers += 1
        if start == pulsar.MessageId.latest:
            return Reader(self._world, topic, max(0, len(self._world.topics[topic]) - 1))
        earliest = start == pulsar.MessageId.earliest
        behind = 0 if start_message_id_inclusive else 1
        return Reader(self._world, topic, 0 if earliest else start.entry_id() + behind)


class Checkpoints(CheckpointStore):
    """The real store, with a place to crash before and behind each write."""

    world: World

    def _update(self, update: Mapping[str, Any]) -> None:
        self.world.step()
        super()._update(update)
        self.world.step()


class Log:
    """The world's log in place of the change stream; `ended` is called when all is checkpointed."""

    def __init__(self, site: Site, world: World, *, ended: Callable[[], None]) -> None:
        self.over = threading.Event()
        self._site = site
        self._world = world
        self._ended = ended

    def due(self, checkpoint: Checkpoint, **_: Any) -> Checkpoint:
        """Return the checkpoint: no scan is ever due here."""
        return checkpoint

    def open(self, checkpoint: Checkpoint, **_: Any) -> Iterator[Batch]:
        """Return batches of some rows each."""
        assert checkpoint.token is not None
        return self._read(int(checkpoint.token.document["_data"]))

    def _read(self, at: int) -> Iterator[Batch]:
        log, dice = self._world.log, random.Random(self._world.dice.random())
        while at < len(log):
            upto = min(len(log), at + dice.randint(1, 7))
            middle = dice.randint(at, upto)
            slices = [log[at:middle], log[middle:upto]]
            yield Batch(
                slices=filter(None, slices), point=Point(token=ResumeToken({"_data": str(upto)}))
            )
            at = upto
        while not self.over.wait(0.001):
            if self._site.checkpoint["resumeToken"]["_data"] == str(at):
                self._ended()


class LoggedTerm(Term):
    """The real term, which lets the broker work while it waits."""

    world: World

    def _receive(self, timeout: float) -> None:
        self.world.store(self.world.dice.randint(1, 4))
        super()._receive(min(timeout, 0.01))


def new_term(
    site: Site, world: World, log: Log, stopping: threading.Event, *, key: str | None = None
) -> LoggedTerm:
    """Return a term of the world's log, which sends in batches where there are no keys."""
    checkpoints = Checkpoints(site.database, partition=DEFAULT_PARTITION, owner="test")
    checkpoints.world = world
    observer = Observer()
    mandate = Mandate(
        database=site.database,
        client=Broker(world),
        checkpoints=checkpoints,
        quarantine=Quarantine(site.database, partition=DEFAULT_PARTITION),
        routing=Routing(default=TOPICS[0], topics={"Two": TOPICS[1]}, key=key),
        experience=inexperienced(),
        observer=observer,
        stopping=stopping,
    )
    options = TermOptions(
        partition=DEFAULT_PARTITION,
        pace=CheckpointPace(busy_seconds=0, idle_seconds=0),
        drain_timeout=5 * SECOND,
        block_on_poison=False,
        poison_limit=0,
        mark_sent=False,
        lanes=lane_options(SECOND),
    )
    term = LoggedTerm(
        mandate,
        origin=cast("Origin", log),
        options=options,
        standing=Standing(observer, partition="default", state=State.OPENING),
    )
    term.world = world
    return term


def relay(site: Site, world: World) -> bool:
    """Run one term, and say whether it came to the end of the log."""
    stopping = threading.Event()

    def ended() -> None:
        stopping.set()
        term.stop()

    log = Log(site, world, ended=ended)
    term = new_term(site, world, log, stopping)
    try:
        term.run(on_idle=lambda: None)
    except Crash:
        return False
    finally:
        log.over.set()
    return True


def row(name: str) -> dict[str, Any]:
    """Return a row of a name; `Poison` has no data."""
    data = {"name": name} if name == "Poison" else {"name": name, "data": {}}
    return {"_id": ObjectId(), "occurredAt": datetime.now(UTC).replace(tzinfo=None), "data": data}


names = st.lists(st.sampled_from(["One", "One", "Two", "Poison"]), max_size=40)
crashes = st.lists(st.integers(1, 80), max_size=6)


def begin(site: Site) -> None:
    """Have the next term begin with the log."""
    checkpoints = site.database[wire.CHECKPOINTS]
    checkpoints.delete_many({})
    nothing = {"resumeToken": {"_data": "0"}, "lastProcessedId": None}
    checkpoints.insert_one({"partitionKey": "default", **nothing})


def relay_with_crashes(site: Site, log: list[str], steps: list[int], seed: int) -> World:
    """Relay a log, with a crash at each of the steps, then to its end."""
    begin(site)
    world = World(log=[row(name) for name in log], dice=random.Random(seed), crash_at=0)
    for crash_at in [*steps, 0]:
        world.steps, world.crash_at = 0, crash_at
        finished = relay(site, world)
        world.kill()
        if crash_at == 0:
            assert finished
    return world


def expected(world: World, topic: str) -> list[str]:
    """Return the ids that a topic should have, in order."""
    name = "One" if topic == TOPICS[0] else "Two"
    return [str(r["_id"]) for r in world.log if r["data"]["name"] == name]


def found(world: World, topic: str) -> list[str]:
    """Return the ids that a topic has."""
    return [sent.message.properties()[wire.ID] for sent in world.topics[topic]]


@given(names, crashes, st.integers(0, 10_000))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_every_event_is_on_its_topic_once_in_order(
    lite_site: Site, log: list[str], steps: list[int], seed: int
) -> None:
    """Whatever the log and wherever the crashes: each topic has its events once, in log order."""
    world = relay_with_crashes(lite_site, log, steps, seed)
    for topic in TOPICS:
        assert found(world, topic) == expected(world, topic)


def test_a_takeover_costs_each_topic_one_reader(lite_site: Site) -> None:
    """Which sees that the mark's message is there and goes on behind it, without deduplication."""
    begin(lite_site)
    world = World(log=[row("One"), row("Two")], dice=random.Random(1), crash_at=0)
    assert relay(lite_site, world)
    assert [len(world.topics[topic]) for topic in TOPICS] == [1, 1]
    world.readers = 0
    assert relay(lite_site, world)
    assert world.readers == len(TOPICS)


def test_without_the_tail_the_property_does_not_hold(
    lite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same crashes with the tail switched off: some events are there twice."""
    monkeypatch.setattr(TailReader, "read", lambda *_, **__: Tail())
    repeated = 0
    for seed in range(10):
        world = relay_with_crashes(lite_site, ["One"] * 30, [20, 25, 30], seed)
        repeated += len(found(world, TOPICS[0])) - len(set(found(world, TOPICS[0])))
    assert repeated > 0


class SilentWorld(World):
    """Its broker stores the first message, which leaves alone, and nothing else."""

    def store(self, count: int) -> None:
        """Store what is pending while there is nothing."""
        if not self.topics[TOPICS[0]]:
            super().store(count)


class FailingLog(Log):
    """A log of which reading fails when all but the first row is under way."""

    error: BaseException

    def _read(self, at: int) -> Iterator[Batch]:
        first, rest = self._world.log[at : at + 1], self._world.log[at + 1 :]
        for rows, upto in ((first, "1"), (rest, "2")):
            yield Batch(slices=[rows], point=Point(token=ResumeToken({"_data": upto})))
        wait_until(lambda: len(self._world.pending) == len(rest), description="it is under way")
        raise self.error

    def lose_history(self) -> None:
        """Do nothing: there is no scan here."""


@pytest.mark.parametrize(
    "error",
    [
        errors.TermEnded("ended"),
        errors.HistoryLost("lost"),
        errors.MutexLost("lost"),
        errors.Blocked("a poison row"),
        errors.CheckpointRefused("newer"),
        errors.OtherPartitioning("divided"),
        errors.ServiceUnavailable("away"),
        mongo.AutoReconnect("away"),
        mongo.OperationFailure("stepped down", 189),
        mongo.CursorNotFound("killed", 43),
        pulsar.ConnectError("away"),
        pulsar.Timeout("silent"),
        OSError("reset"),
        RuntimeError("a fault"),
        KeyboardInterrupt(),
        errors.Superseded("a newer one"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_ends_a_term_what_was_under_way_is_noted(
    lite_site: Site, error: BaseException
) -> None:
    """In the order in which it was handed to its topic; where another relay has sent it, not."""
    begin(lite_site)
    world = SilentWorld(log=[row("One") for _ in range(5)], dice=random.Random(1), crash_at=0)
    log = FailingLog(lite_site, world, ended=lambda: None)
    log.error = error
    with pytest.raises(type(error)):
        new_term(lite_site, world, log, threading.Event(), key="k").run(on_idle=lambda: None)
    noted = (lite_site.checkpoint.get("intents") or {}).values()
    ids = [row_id for each in noted for row_id in each["ids"]]
    is_superseded = isinstance(error, errors.Superseded)
    assert ids == ([] if is_superseded else [str(each["_id"]) for each in world.log[1:]])
