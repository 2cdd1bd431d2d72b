"""What the relay itself does for an event, against the least that anybody could do for it."""

from __future__ import annotations

import gc
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

import bson
import orjson
import pulsar
import pytest
from bson import ObjectId

from postroom import pulsar_adapter, wire
from postroom.relay.reading import stream
from postroom.relay.reading.batch import Batch
from postroom.relay.saving.chunk import Chunk
from postroom.relay.sending.acknowledgements import Acknowledgements
from postroom.relay.sending.brake import Brake
from postroom.relay.sending.experience import Experience
from postroom.relay.sending.lane import BATCH_MESSAGES, Lane
from postroom.relay.sending.lanes import Lanes
from postroom.relay.sending.outbound import Outbound
from postroom.relay.sending.outlet import Outlet, SendTimeout
from postroom.relay.sending.tap import Tap
from postroom.relay.sending.unanswered import Unanswered
from postroom.relay.sending.waiting import Waiting
from postroom.routing import Routing
from postroom.store.values import ResumeToken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS = 2000
ROUNDS, MOST_ROUNDS = 5, 40
BATCH_BYTES = 128 << 10
# Measured on an idle machine and on one that was five times too busy: 1.2 to 1.5 times.
MOST = 1.9


class Place(NamedTuple):
    """Where the broker says that a message is."""

    entry: int
    place: int

    def ledger_id(self) -> int:
        """Return any ledger."""
        return 1

    def entry_id(self) -> int:
        """Return the place on the topic, as if each message were an entry."""
        return self.entry

    def batch_index(self) -> int:
        """Return the place in its batch."""
        return self.place

    def serialize(self) -> bytes:
        """Return any mark."""
        return b"mark"


class Broker:
    """A producer of the client's, of whose broker nothing is asked and which stores at once."""

    def __init__(self) -> None:
        self._producer = self
        self._sent = self._in_burst = 0

    def send_async(self, _: Any, told: Callable[[Any, Any], None] | None) -> None:
        """Take a message."""
        self._sent += 1
        self._in_burst += 1
        if told is not None:
            told(pulsar.Result.Ok, Place(self._sent, self._in_burst - 1))
            self._in_burst = 0

    def is_connected(self) -> bool:
        """Say that it is."""
        return True

    def flush(self) -> None:
        """Have nothing to flush."""


def reply(*, keyed: bool) -> bytes:
    """Return what MongoDB's change stream replies."""
    rows: list[dict[str, Any]] = [
        {
            "_id": ObjectId(),
            "partitionKey": "default",
            "occurredAt": datetime.now(UTC),
            "data": {
                "name": "Noticed",
                "data": {"medicineId": str(ObjectId()), "patientId": str(n), "n": n},
            },
            **({"key": str(n)} if keyed else {}),
        }
        for n in range(ROWS)
    ]
    token = {"_data": "8265" * 20}
    return b"".join(bson.encode({"_id": token, "fullDocument": row}) for row in rows)


def outbound(*, keyed: bool) -> Outbound:
    """Return one with a lane whose topic has taken as large entries as there are."""
    routing = Routing(default="a/b/c", topics={}, key=None)
    topic = routing.default

    def fail(refusal: object) -> NoReturn:
        raise AssertionError(refusal)

    outlet = Outlet(
        Tap(cast("pulsar.Producer", Broker())),
        Acknowledgements(topic, counted=True, batched=not keyed, tell=fail),
        batch_messages=None if keyed else BATCH_MESSAGES,
        timeout=SendTimeout(30, threading.Event()),
        fail=fail,
    )
    outlet.proven = BATCH_BYTES
    experience = Experience(largest=BATCH_BYTES, admin=cast("Any", None))
    experience.note_accepted(topic, BATCH_BYTES)
    lane = Lane(
        topic,
        outlet,
        shared=False,
        floor=0,
        experience=experience,
        reopened=lambda batching: outlet,
    )
    waiting = Waiting(cast("Any", None), tell=lambda _: None)
    lanes = Lanes(cast("Any", None), routing=routing, saver=cast("Any", None), waiting=waiting)
    lanes._open[topic] = lane
    return Outbound(
        lanes,
        waiting=waiting,
        outbox=cast("Any", None),
        routing=routing,
        max_message_bytes=BATCH_BYTES,
        block_on_poison=False,
        brake=Brake(limit=1),
        unanswered=Unanswered(),
        intents=experience.intents,
    )


def relayed(out: Outbound, raw: bytes) -> int:
    """Do what the relay does with a reply."""
    found = stream.Reply(token=ResumeToken({}), raw=raw, starts=stream._starts(raw))
    chunk = Chunk(point=None)
    landed: list[object] = []
    out.fill(chunk, Batch(slices=found.slices(), point=None))
    out.seal(chunk, landed.append)
    assert len(landed) == 1
    return chunk.sent


def sent_thinly(raw: bytes) -> int:
    """Do the least that makes messages of a reply, and keep no promise."""
    builder: Any = pulsar_adapter.message_builder()
    messages = []
    for number, change in enumerate(bson.decode_all(raw)):
        row = change["fullDocument"]
        message = builder()
        message.content(orjson.dumps(row["data"]))
        message.property(wire.ID, str(row["_id"]))
        message.property(wire.POSITION, str(number))
        message.sequence_id(number)
        if "key" in row:
            message.partition_key(row["key"])
        message.event_timestamp(int(row["occurredAt"].timestamp() * 1000))
        messages.append(message.build())
    return len(messages)


@pytest.fixture
def no_collections() -> Iterator[None]:
    """Keep the collector from looking through what other tests have left meanwhile."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def seconds(work: Callable[[], int]) -> float:
    """Return the processor time of this thread that some work takes."""
    began = time.thread_time()
    assert work() == ROWS
    return time.thread_time() - began


@pytest.mark.usefixtures("no_collections")
@pytest.mark.parametrize("keyed", [False, True], ids=["without keys", "with keys"])
def test_all_promises_cost_less_than_the_work_itself_does_twice(keyed: bool) -> None:  # noqa: FBT001
    """From a reply to messages handed over, with numbers, limits and proofs; the best of rounds."""
    raw, out = reply(keyed=keyed), outbound(keyed=keyed)
    ours, thin = [], []
    for _ in range(MOST_ROUNDS):
        ours.append(seconds(lambda: relayed(out, raw)))
        thin.append(seconds(lambda: sent_thinly(raw)))
        if len(ours) >= ROUNDS and min(ours) / min(thin) < MOST:
            return
    pytest.fail(f"{min(ours) / min(thin):.2f} times; {min(ours) / ROWS * 1e6:.1f} µs an event")
