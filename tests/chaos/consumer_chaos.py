"""Two consumer workers under random kills and freezes; what they did is compared with what came.

A producer sends events of some keys in order, every tenth of them twice and one in a hundred that
no handler can handle. In the end each good event has to be applied once, each key in order, each
poison one has to be a dead letter, and the subscription has to be empty.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pulsar
from pymongo import MongoClient
from pymongo import errors as mongo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.chaos.relay_chaos import Service

KEYS = 40
FREEZE_SECONDS = 7.0
SETTLE_SECONDS = 120.0
SUBSCRIPTION = "test"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of the events; all but the first three have to be nothing."""

    good: int
    poison: int
    actions: Mapping[str, int]
    not_applied: int
    applied_twice: int
    keys_out_of_order: int
    poison_lost: int
    strangers: int
    backlog: int

    @property
    def clean(self) -> bool:
        """Whether every event had its effect once, in order, or is a dead letter."""
        return self.good > 0 and not any(
            (
                self.not_applied,
                self.applied_twice,
                self.keys_out_of_order,
                self.poison_lost,
                self.strangers,
                self.backlog,
            )
        )

    def __str__(self) -> str:
        done = ", ".join(f"{n} {action}" for action, n in sorted(self.actions.items()))
        return (
            f"{self.good} good and {self.poison} poison events; {done}: {self.not_applied} not "
            f"applied, {self.applied_twice} applied twice, {self.keys_out_of_order} keys out of "
            f"order, {self.poison_lost} poison lost, {self.strangers} good among the dead letters, "
            f"backlog {self.backlog}"
        )


@dataclass(kw_only=True)
class ConsumerChaos:
    """One run; everything that is random comes from `seed`."""

    environment: Mapping[str, str]
    seconds: float
    seed: int
    logs: Path
    services: Mapping[str, Service] = field(default_factory=dict)
    rate_per_second: float = 200.0
    say: Callable[[str], None] = print

    def run(self) -> Verdict:
        """Send, kill and freeze for `seconds`, let it settle, and judge."""
        self._random = random.Random(self.seed)
        self._actions: dict[str, int] = {}
        self._spawned = 0
        self._over = threading.Event()
        self._good: dict[str, list[int]] = {}
        self._poison: set[str] = set()
        workers = [self._spawn() for _ in range(2)]
        sender = threading.Thread(target=self._send)
        sender.start()
        try:
            self._torment(workers)
        finally:
            self._over.set()
            sender.join()
        try:
            return self._settle(workers)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._spawned += 1
        command = [sys.executable, "-m", "celery", "-A", "tests.shop", "worker", "-Q", "consumer"]
        with (self.logs / f"consumer-{self._spawned}.log").open("wb") as log:
            return subprocess.Popen(
                [*command, "--loglevel=INFO"],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _client(self) -> pulsar.Client:
        return pulsar.Client(
            self.environment["POSTROOM_PULSAR_URL"],
            operation_timeout_seconds=30,
            logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull),
        )

    def _send(self) -> None:
        dice = random.Random(f"{self.seed}-sender")
        client = self._client()
        producer = self._producer(client)
        number = 0
        while not self._over.is_set():
            number += 1
            key, event_id = f"k{dice.randrange(KEYS)}", f"e{number}"
            if number % 100 == 0:
                payload, poison = _poison(dice, number), True
            else:
                payload, poison = _good(dice, number), False
            for _ in range(2 if number % 10 == 0 else 1):
                producer.send_async(payload, None, properties={"id": event_id}, partition_key=key)
            if poison:
                self._poison.add(event_id)
            else:
                self._good.setdefault(key, []).append(number)
            self._over.wait(dice.expovariate(self.rate_per_second))
        producer.flush()
        client.close()

    def _producer(self, client: pulsar.Client) -> pulsar.Producer:
        while True:
            try:
                return client.create_producer(
                    self.environment["POSTROOM_TOPIC"],
                    producer_name="chaos",
                    send_timeout_millis=0,
                    block_if_queue_full=True,
                )
            except pulsar.PulsarException:
                # The broker may just have been killed.
                if self._over.wait(0.5):
                    raise

    def _torment(self, workers: list[subprocess.Popen[bytes]]) -> None:
        end = time.monotonic() + self.seconds
        acts: list[Callable[[list[subprocess.Popen[bytes]]], str]] = [
            *[self._kill] * 5,
            *[self._stop] * 2,
            *[self._freeze] * 2,
            *[self._service_killer(name) for name in self.services],
        ]
        while time.monotonic() < end:
            self._over.wait(self._random.uniform(1.0, 5.0))
            act = self._random.choice(acts)(workers)
            self._actions[act] = self._actions.get(act, 0) + 1
            self.say(f"{end - time.monotonic():6.1f} s left: {act}")

    def _kill(self, workers: list[subprocess.Popen[bytes]]) -> str:
        return self._replace(workers, signal.SIGKILL, "consumer kills")

    def _stop(self, workers: list[subprocess.Popen[bytes]]) -> str:
        return self._replace(workers, signal.SIGTERM, "consumer stops")

    def _replace(
        self, workers: list[subprocess.Popen[bytes]], signum: signal.Signals, name: str
    ) -> str:
        n = self._random.randrange(len(workers))
        workers[n].send_signal(signum)
        workers[n].wait(timeout=30)
        workers[n] = self._spawn()
        return name

    def _freeze(self, workers: list[subprocess.Popen[bytes]]) -> str:
        worker = self._random.choice(workers)
        worker.send_signal(signal.SIGSTOP)
        threading.Event().wait(FREEZE_SECONDS)
        worker.send_signal(signal.SIGCONT)
        return "consumer freezes"

    def _service_killer(self, name: str) -> Callable[[list[subprocess.Popen[bytes]]], str]:
        def kill(_: list[subprocess.Popen[bytes]]) -> str:
            service = self.services[name]
            service.kill()
            service.start()
            service.wait_ready()
            return f"{name} kills"

        return kill

    def _settle(self, workers: list[subprocess.Popen[bytes]]) -> Verdict:
        good = sum(map(len, self._good.values()))
        self.say(f"{good} good and {len(self._poison)} poison events sent; waiting for their end")
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            for n, worker in enumerate(workers):
                if worker.poll() is not None:
                    workers[n] = self._spawn()
            verdict = None
            with contextlib.suppress(mongo.PyMongoError, OSError):
                verdict = self._judge()
            if time.monotonic() > end and verdict is not None:
                return verdict
            if verdict is not None and verdict.clean:
                return verdict
            threading.Event().wait(2.0)

    def _judge(self) -> Verdict:
        uri = self.environment["POSTROOM_MONGODB_URI"]
        with MongoClient[Any](uri) as client:
            database = client[self.environment["POSTROOM_MONGODB_DATABASE"]]
            charts = {row["_id"]: row["numbers"] for row in database["charts"].find()}
        expected = {number for numbers in self._good.values() for number in numbers}
        applied = [number for numbers in charts.values() for number in numbers]
        dead = self._dead()
        return Verdict(
            good=len(expected),
            poison=len(self._poison),
            actions=self._actions,
            not_applied=len(expected - set(applied)),
            applied_twice=len(applied) - len(set(applied)),
            keys_out_of_order=sum(numbers != sorted(numbers) for numbers in charts.values()),
            poison_lost=len(self._poison - dead),
            strangers=len(dead - self._poison),
            backlog=self._backlog(),
        )

    def _dead(self) -> set[str]:
        found = set()
        client = self._client()
        with contextlib.closing(client):
            topic = f"{self.environment['POSTROOM_TOPIC']}-{SUBSCRIPTION}-DLQ"
            reader = client.create_reader(topic, pulsar.MessageId.earliest)
            while reader.has_message_available():
                found.add(reader.read_next(10_000).properties()["id"])
        return found

    def _backlog(self) -> int:
        topic = self.environment["POSTROOM_TOPIC"].removeprefix("persistent://")
        address = f"{self.environment['POSTROOM_PULSAR_ADMIN_URL']}/admin/v2/persistent/{topic}"
        with urllib.request.urlopen(
            f"{address}/stats?getPreciseBacklog=true", timeout=10
        ) as answer:
            stats = json.load(answer)
        return int(stats["subscriptions"][SUBSCRIPTION]["msgBacklog"])


def _good(dice: random.Random, number: int) -> bytes:
    # One in fifty is tried again twice, so that later events of its key wait behind it.
    name = "Flaky" if dice.random() < 0.02 else dice.choice(["Counted", "Typed"])
    return json.dumps({"name": name, "data": {"number": number}}).encode()


def _poison(dice: random.Random, number: int) -> bytes:
    return dice.choice(
        [
            b"nonsense",
            b"[1, 2]",
            b'{"name": 1, "data": {}}',
            b'{"name": "Typed", "data": {"number": "many"}}',
            json.dumps({"name": "Rejected", "data": {"number": number}}).encode(),
        ]
    )
