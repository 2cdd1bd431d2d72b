"""Site: a test's own corner of the services, and the application's workers started in it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulsar
from bson import ObjectId
from pymongo import MongoClient

from postroom import broker, wire
from postroom.access import pulsar as pulsar_access
from postroom.settings import Settings
from tests.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pymongo.database import Database

ROOT = Path(__file__).parents[1]
STOP_SECONDS = 15
ADMIN_SECONDS = 30


class Worker:
    """One literal command of the application, as a process with a log."""

    def __init__(
        self, words: str, environment: Mapping[str, str], log: Path, *, cwd: Path = ROOT
    ) -> None:
        self.words = words
        self.log = log
        program, *rest = words.split()
        self._file = log.open("wb")
        self.process = subprocess.Popen(
            [str(Path(sys.executable).parent / program), *rest],
            env={**os.environ, **environment},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def text(self) -> str:
        """Return what it has logged so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until it has logged these words."""

        def said() -> bool:
            if words in self.text():
                return True
            assert self.process.poll() is None, f"{self.words} ended:\n{self.text()[-3000:]}"
            return False

        wait_until(said, description=f"{self.words} logs {words!r}", seconds=seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it, and all that it has started, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._file.close()

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.words} did not end:\n{self.text()[-3000:]}") from None

    def exit_code(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait until it has ended by itself, and return its exit code."""
        return self.process.wait(seconds)


class Site:
    """Own database, topics and subscription; what a test started is gone at its end."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.name = f"t{uuid.uuid4().hex[:10]}"
        self.topic = broker.canonical(f"public/default/{self.name}")
        self.folder = folder
        self.environment = {
            **environment,
            "POSTROOM_MONGODB_DATABASE": self.name,
            "POSTROOM_TOPIC": f"public/default/{self.name}",
            "POSTROOM_MUTEX_TOPIC": f"public/default/{self.name}-mutex",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self.mongodb: MongoClient[Any] = MongoClient(
            environment["POSTROOM_MONGODB_URI"], tz_aware=True
        )
        self.database: Database[Any] = self.mongodb[self.name]
        self.pulsar = broker.connect(
            pulsar_access.of(self.settings()), operation_timeout=timedelta(seconds=30)
        )
        self._workers: list[Worker] = []

    @property
    def outbox(self) -> Any:
        """The collection of outbox rows."""
        return self.database[wire.OUTBOX]

    @property
    def checkpoint(self) -> dict[str, Any]:
        """The checkpoint row of the default partition, or nothing."""
        return self.database[wire.CHECKPOINTS].find_one({"partitionKey": "default"}) or {}

    def settings(self, **changes: Any) -> Settings:
        """Return settings for this site."""
        own = {
            name.removeprefix("POSTROOM_").lower(): value
            for name, value in self.environment.items()
            if name.startswith("POSTROOM_")
        }
        return Settings.model_validate({**own, **changes})

    def start(self, words: str, cwd: Path = ROOT, /, **variables: str) -> Worker:
        """Start a literal command."""
        number = len(self._workers) + 1
        environment = {**self.environment, **variables}
        worker = Worker(words, environment, self.folder / f"{number}.log", cwd=cwd)
        self._workers.append(worker)
        return worker

    def run(self, words: str) -> str:
        """Run a literal command to its end, and return what it prints."""
        program, *rest = words.split()
        done = subprocess.run(
            [str(Path(sys.executable).parent / program), *rest],
            env={**os.environ, **self.environment, "COLUMNS": "200"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def relay(self, **variables: str) -> Worker:
        """Start a relay worker."""
        return self.start("celery -A tasks worker -Q relay --loglevel=INFO", **variables)

    def relay_and_standby(self) -> tuple[Worker, Worker]:
        """Start a relay worker, and another one that waits for its mutex."""
        leader = self.relay()
        leader.wait_for("Relaying partition")
        standby = self.relay()
        standby.wait_for("standing by")
        return leader, standby

    def consumer(self, **variables: str) -> Worker:
        """Start a consumer worker."""
        return self.start("celery -A tasks worker -Q consumer --loglevel=INFO", **variables)

    def insert(self, count: int, *, first: int = 0, **fields: Any) -> list[str]:
        """Insert rows of four fields, each in a transaction of its own order, and return ids."""
        rows = [row(number, **fields) for number in range(first, first + count)]
        self.outbox.insert_many(rows)
        return [str(r["_id"]) for r in rows]

    def subscribe(self, subscription: str = "plain", topic: str | None = None) -> pulsar.Consumer:
        """Make a plain subscription from the topic's beginning."""
        return self.pulsar.subscribe(
            topic or self.topic,
            subscription,
            initial_position=pulsar.InitialPosition.Earliest,
        )

    def admin(
        self, method: str, what: str, *, topic: str | None = None, body: bytes | None = None
    ) -> bytes:
        """Ask the admin interface of real Pulsar something of a topic; return its answer."""
        path = broker.canonical(topic or self.topic).replace("://", "/")
        request = urllib.request.Request(
            f"{self.environment['POSTROOM_PULSAR_ADMIN_URL']}/admin/v2/{path}{what}",
            body,
            {"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=ADMIN_SECONDS) as answer:
            return bytes(answer.read())

    def admin_namespace(self, namespace: str, policy: str, value: object) -> None:
        """Make a namespace of real Pulsar if it is not there, and set a policy of it."""
        self.admin_at("PUT", f"namespaces/{namespace}", None)
        self.admin_at("POST", f"namespaces/{namespace}/{policy}", json.dumps(value).encode())

    def admin_at(self, method: str, what: str, body: bytes | None) -> None:
        """Ask the admin interface of real Pulsar for what may be so already."""
        admin = f"{self.environment['POSTROOM_PULSAR_ADMIN_URL']}/admin/v2"
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{admin}/{what}", body, headers, method=method)
        try:
            urllib.request.urlopen(request, timeout=ADMIN_SECONDS).close()
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.CONFLICT:
                raise

    def receive(
        self, consumer: pulsar.Consumer, count: int, *, seconds: float = PATIENCE_SECONDS
    ) -> list[pulsar.Message]:
        """Receive `count` messages and make sure that no other follows at once."""
        found: list[pulsar.Message] = []

        def enough() -> bool:
            with contextlib.suppress(pulsar.Timeout):
                while len(found) <= count:
                    wait = 100 if len(found) < count else 300
                    found.append(consumer.receive(timeout_millis=wait))
                    consumer.acknowledge(found[-1])
            return len(found) >= count

        try:
            wait_until(enough, description=f"{count} messages", seconds=seconds)
        except AssertionError as error:
            error.add_note(f"{len(found)} came")
            raise
        return found

    def stored(self, topic: str | None = None) -> list[str]:
        """Return the ids of all events on the topic, in order, as a reader finds them."""
        found = []
        reader = self.pulsar.create_reader(topic or self.topic, pulsar.MessageId.earliest)
        # The embedded broker's way to say that nothing is there yet is this error.
        with contextlib.closing(reader), contextlib.suppress(pulsar.UnknownError):
            while reader.has_message_available():
                found.append(reader.read_next(10_000).properties()["id"])
        return found

    def close(self) -> None:
        """End what is left, and remove the data."""
        for worker in self._workers:
            worker.kill()
        self._end_transactions()
        self.mongodb.drop_database(self.name)
        self.mongodb.close()
        broker.close(self.pulsar)

    def _end_transactions(self) -> None:
        """End what workers were in the middle of when they were killed.

        MongoDB ends it after a minute, and removes no database before.
        """
        if not self._workers:
            return
        stages: list[dict[str, Any]] = [
            {"$currentOp": {"allUsers": True, "idleSessions": True}},
            {"$match": {"transaction": {"$exists": True}, "active": False}},
        ]
        left = [{"lsid": each["lsid"]} for each in self.mongodb.admin.aggregate(stages)]
        if left:
            self.mongodb.admin.command("killAllSessionsByPattern", left)


def row(number: int, *, partition: str = "default", name: str = "Counted") -> dict[str, Any]:
    """Return an outbox row as another program writes it."""
    return {
        "_id": ObjectId(),
        "partitionKey": partition,
        "occurredAt": datetime.now(UTC),
        "data": {"name": name, "data": {"number": number}},
    }


def ids(messages: Iterable[pulsar.Message]) -> list[str]:
    """Return the event ids of messages."""
    return [message.properties()["id"] for message in messages]
