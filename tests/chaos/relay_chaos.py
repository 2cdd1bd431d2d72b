"""Two relays under random kills and freezes; what the topic holds is compared with the log.

The truth is MongoDB's own change stream, read again from its beginning when all is over: the topic
must hold exactly these events, each once, in this order.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import pulsar
from bson import ObjectId
from pymongo import MongoClient
from pymongo import errors as mongo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

OUTBOX = "__outboxMessages"
FREEZE_SECONDS = 7.0
SETTLE_SECONDS = 90.0
BACKLOG_CHUNK = 1000
FIRST_START_SECONDS = 90.0
FIRST_START_KILLS = 2


class Service(Protocol):
    """What the driver needs of a service that it may kill."""

    def kill(self) -> None:
        """End it as a power cut would."""

    def start(self) -> None:
        """Start it on the data it had."""

    def wait_ready(self) -> None:
        """Wait until it answers."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of the events; all but `written` and `actions` have to be nothing."""

    written: int
    lost: int
    duplicated: int
    out_of_order: int
    strangers: int
    actions: Mapping[str, int]

    @property
    def clean(self) -> bool:
        """Whether every event is on the topic once, in commit order."""
        return not (self.lost or self.duplicated or self.out_of_order or self.strangers)

    def __str__(self) -> str:
        done = ", ".join(f"{n} {action}" for action, n in sorted(self.actions.items()))
        return (
            f"{self.written} events; {done}: {self.lost} lost, {self.duplicated} duplicated, "
            f"{self.out_of_order} out of order, {self.strangers} that were never committed"
        )


def judge(truth: Sequence[str], topic: Sequence[str], actions: Mapping[str, int]) -> Verdict:
    """Compare the ids in commit order with the ids on the topic."""
    first_seen = list(dict.fromkeys(topic))
    order = {event_id: n for n, event_id in enumerate(truth)}
    places = [order[event_id] for event_id in first_seen if event_id in order]
    return Verdict(
        written=len(truth),
        lost=len(set(truth) - set(topic)),
        duplicated=len(topic) - len(first_seen),
        out_of_order=sum(b < a for a, b in itertools.pairwise(places)),
        strangers=len(set(topic) - set(truth)),
        actions=actions,
    )


@dataclass(kw_only=True)
class RelayChaos:
    """One run; everything that is random comes from `seed`."""

    environment: Mapping[str, str]
    seconds: float
    seed: int
    logs: Path
    services: Mapping[str, Service] = field(default_factory=dict)
    application: str = "tasks"
    only_kills: bool = False
    transaction_sizes: Sequence[int] = (1, 1, 5, 50, 200)
    pause_seconds: float = 0.005
    backlog: int = 100_000
    say: Callable[[str], None] = print

    def run(self) -> Verdict:
        """Write, kill and freeze for `seconds`, let it settle, and judge."""
        self._random = random.Random(self.seed)
        self._actions: dict[str, int] = {}
        self._spawned = 0
        self._over = threading.Event()
        self._mongodb: MongoClient[Any] = MongoClient(
            self.environment["POSTROOM_MONGODB_URI"], serverSelectionTimeoutMS=60_000
        )
        self._outbox = self._mongodb[self.environment["POSTROOM_MONGODB_DATABASE"]][OUTBOX]
        self._outbox.database.create_collection(OUTBOX)
        with self._outbox.watch() as stream:
            stream.try_next()
            self._beginning = stream.resume_token
        self._write_backlog()
        relays = [self._spawn() for _ in range(2)]
        self._disturb_first_start(relays)
        writers = [threading.Thread(target=self._write, args=(n,)) for n in range(2)]
        for writer in writers:
            writer.start()
        try:
            self._torment(relays)
        finally:
            self._over.set()
            for writer in writers:
                writer.join()
        try:
            return self._settle(relays)
        finally:
            for relay in relays:
                relay.kill()
                relay.wait()
            self._mongodb.close()

    def _write_backlog(self) -> None:
        # The counter in an ObjectId starts anywhere, and these are to be in order.
        now = f"{int(time.time()):08x}"
        for first in range(0, self.backlog, BACKLOG_CHUNK):
            numbers = range(first, first + BACKLOG_CHUNK)
            rows = [_row(0) | {"_id": ObjectId(f"{now}{n:016x}")} for n in numbers]
            self._outbox.insert_many(rows)

    def _disturb_first_start(self, relays: list[subprocess.Popen[bytes]]) -> None:
        # What is there before the first term is sent in the order of its ids, which for these rows
        # is that of their commits. What is written from then on has the order of commits alone, so
        # that the writers wait until the collection is relayed.
        end = time.monotonic() + FIRST_START_SECONDS
        kills = FIRST_START_KILLS
        while not self._checkpoint_has({"resumeToken": {"$ne": None}, "scan": None}):
            if time.monotonic() > end:
                raise TimeoutError(
                    f"The backlog was not relayed in {FIRST_START_SECONDS:.0f} s; see {self.logs}"
                )
            self._over.wait(self._random.uniform(0.1, 0.6))
            if kills and self._checkpoint_has(
                {"scan": {"$ne": None}, "lanes.0": {"$exists": True}}
            ):
                for n in range(len(relays)):
                    self._respawn(relays, n, signal.SIGKILL)
                kills -= 1
                self._actions["kills of both in the first start"] = FIRST_START_KILLS - kills
                self.say("The backlog is being relayed: both relays killed")

    def _checkpoint_has(self, what: Mapping[str, Any]) -> bool:
        return self._outbox.database["__outboxConsumers"].find_one(what) is not None

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._spawned += 1
        command = [sys.executable, "-m", "celery", "-A", self.application, "worker", "-Q"]
        with (self.logs / f"relay-{self._spawned}.log").open("wb") as log:
            return subprocess.Popen(
                [*command, "relay", "-n", f"chaos{self._spawned}@%h", "--loglevel=INFO"],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _write(self, number: int) -> None:
        dice = random.Random(f"{self.seed}-{number}")
        while not self._over.wait(self.pause_seconds):
            rows = [_row(number) for _ in range(dice.choice(self.transaction_sizes))]
            # What a killed MongoDB made of it, the change stream tells in the end.
            with (
                contextlib.suppress(mongo.PyMongoError),
                self._mongodb.start_session() as session,
                session.start_transaction(),
            ):
                self._outbox.insert_many(rows, session=session)

    def _torment(self, relays: list[subprocess.Popen[bytes]]) -> None:
        end = time.monotonic() + self.seconds
        acts: list[Callable[[list[subprocess.Popen[bytes]]], str]] = [
            *[self._kill_relay] * 6,
            *[self._stop_relay] * 2,
            *[self._freeze_relay] * 2,
            *[self._service_killer(name) for name in self.services],
        ]
        if self.only_kills:
            acts = [self._kill_relay]
        while time.monotonic() < end:
            self._over.wait(self._random.uniform(0.5, 3.0))
            act = self._random.choice(acts)(relays)
            self._actions[act] = self._actions.get(act, 0) + 1
            self.say(f"{end - time.monotonic():6.1f} s left: {act}")

    def _kill_relay(self, relays: list[subprocess.Popen[bytes]]) -> str:
        return self._replace(relays, signal.SIGKILL, "relay kills")

    def _stop_relay(self, relays: list[subprocess.Popen[bytes]]) -> str:
        return self._replace(relays, signal.SIGTERM, "relay stops")

    def _replace(
        self, relays: list[subprocess.Popen[bytes]], signum: signal.Signals, name: str
    ) -> str:
        self._respawn(relays, self._random.randrange(len(relays)), signum)
        return name

    def _respawn(
        self, relays: list[subprocess.Popen[bytes]], n: int, signum: signal.Signals
    ) -> None:
        relays[n].send_signal(signum)
        relays[n].wait(timeout=30)
        relays[n] = self._spawn()

    def _freeze_relay(self, relays: list[subprocess.Popen[bytes]]) -> str:
        relay = self._random.choice(relays)
        relay.send_signal(signal.SIGSTOP)
        threading.Event().wait(FREEZE_SECONDS)
        relay.send_signal(signal.SIGCONT)
        return "relay freezes"

    def _service_killer(self, name: str) -> Callable[[list[subprocess.Popen[bytes]]], str]:
        def kill(_: list[subprocess.Popen[bytes]]) -> str:
            service = self.services[name]
            service.kill()
            service.start()
            service.wait_ready()
            return f"{name} kills"

        return kill

    def _settle(self, relays: list[subprocess.Popen[bytes]]) -> Verdict:
        truth = self._truth()
        self.say(f"{len(truth)} events written; waiting for the topic to have them")
        end = time.monotonic() + SETTLE_SECONDS
        verdict: Verdict | None = None
        while True:
            before, verdict = verdict, self._verdict(truth)
            # Two looks: what comes twice may come last.
            settled = verdict is not None and verdict == before and not verdict.lost
            if verdict is not None and (settled or time.monotonic() > end):
                return verdict
            if time.monotonic() > end + SETTLE_SECONDS:
                raise TimeoutError("The broker did not show its topic; nothing was judged")
            for n, relay in enumerate(relays):
                if relay.poll() is not None:
                    relays[n] = self._spawn()
            threading.Event().wait(2.0)

    def _verdict(self, truth: list[str]) -> Verdict | None:
        # The broker may just have been killed.
        with contextlib.suppress(pulsar.PulsarException):
            return judge(truth, self._topic(), self._actions)
        return None

    def _truth(self) -> list[str]:
        marker = self._outbox.insert_one({"partitionKey": "none of ours"}).inserted_id
        found: list[str] = []
        inserts = [{"$match": {"operationType": "insert"}}]
        with self._outbox.watch(inserts, start_after=self._beginning, batch_size=1000) as stream:
            for change in stream:
                if change["fullDocument"]["_id"] == marker:
                    return found
                found.append(str(change["fullDocument"]["_id"]))
        return found

    def _topic(self) -> list[str]:
        client = pulsar.Client(
            self.environment["POSTROOM_PULSAR_URL"],
            logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull),
        )
        found = []
        try:
            reader = client.create_reader(
                self.environment["POSTROOM_TOPIC"], pulsar.MessageId.earliest
            )
            while reader.has_message_available():
                found.append(reader.read_next(10_000).properties()["id"])
        finally:
            client.close()
        return found


def _row(writer: int) -> dict[str, Any]:
    patient = str(writer)
    return {
        "_id": ObjectId(),
        "partitionKey": "default",
        "occurredAt": datetime.now(UTC),
        "data": {
            "name": "MedicineAssigned",
            "data": {"medicineId": str(ObjectId()), "patientId": patient},
        },
    }
