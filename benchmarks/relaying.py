"""The relay's figures: rate, processor time, latency, memory, idleness."""

from __future__ import annotations

import contextlib
import math
import statistics
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import psutil
import pulsar
from bson import ObjectId

from benchmarks import committing
from benchmarks.report import Figure, percentile
from postroom import wire
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.site import Site, Worker

MAIN_MUTEX = "mutex"
WARM_UP_PASSES = 5
WARM_UP_SECONDS = 30.0


# The aid-kit's class names a key, so that its rows have one, whoever writes them.
KEYED = "MedicineAssigned"
UNKEYED = "MedicineNoticed"


def rows(count: int, first: int = 0, *, name: str = UNKEYED) -> list[dict[str, Any]]:
    """Make rows in the four-field shape."""
    return [
        {
            "_id": ObjectId(),
            "partitionKey": "default",
            "occurredAt": datetime.now(UTC),
            "data": {
                "name": name,
                "data": {"medicineId": str(ObjectId()), "patientId": str(n), "n": n},
            },
        }
        for n in range(first, first + count)
    ]


def fill(site: Site, count: int, *, name: str = UNKEYED) -> None:
    """Write a backlog."""
    for first in range(0, count, 1000):
        some = rows(min(1000, count - first), first, name=name)
        site.outbox.insert_many(some, ordered=False)


@contextlib.contextmanager
def held_back(site: Site, **variables: str) -> Iterator[Worker]:
    """Lend a relay that has relayed before and now stands by until the block ends."""
    with relaying(site) as first:
        first.stop()
    mutex = site.pulsar.subscribe(
        site.environment["POSTROOM_MUTEX_TOPIC"],
        MAIN_MUTEX,
        consumer_type=pulsar.ConsumerType.Exclusive,
    )
    worker = site.relay(
        POSTROOM_MUTEX_RETRY_SECONDS="0.1", POSTROOM_CHECKPOINT_SECONDS="0.05", **variables
    )
    worker.wait_for("standing by")
    yield worker
    mutex.close()


@contextlib.contextmanager
def relaying(site: Site) -> Iterator[Worker]:
    """Lend a relay that relays."""
    worker = site.relay()
    worker.wait_for("goes on from there")
    yield worker


def position(site: Site) -> int:
    """Return the position up to which everything is stored."""
    return int(site.checkpoint.get("position") or 0)


class Pass(NamedTuple):
    """One backlog, relayed and read."""

    rate: float
    reading: float
    processor: float
    stored: int


class Kind(NamedTuple):
    """What a backlog is made of, and the setting that it is relayed with."""

    what: str
    name: str
    bar: float | None
    variables: Mapping[str, str] = {}


WITHOUT_KEYS = Kind("rows without keys", UNKEYED, 0.8)
WITH_KEYS = Kind("rows with keys", KEYED, None)
KEYS_TO_FAILOVER = Kind(
    "rows with keys, failover declared",
    KEYED,
    0.8,
    {"POSTROOM_SUBSCRIPTION_TYPE": "failover"},
)
KEYS_BATCHED = Kind(
    "rows with keys, POSTROOM_BATCH_KEYED=1", KEYED, 0.8, {"POSTROOM_BATCH_KEYED": "1"}
)


def backlog(sites: Sequence[Site], count: int, kind: Kind) -> list[Figure]:
    """Relay a backlog, beside reading the same change stream into nothing; medians.

    The first passes are not counted: the broker has to be warm, as one that runs is. Until then it
    takes twice the processor time for each event.
    """
    passes = [_relay_backlog(site, count, kind) for site in sites][WARM_UP_PASSES:]
    ratio, rate, reading, processor = (
        statistics.median(values)
        for values in zip(
            *((p.rate / p.reading, p.rate, p.reading, p.processor) for p in passes), strict=True
        )
    )
    stored = min(p.stored for p in passes)
    detail = f"{rate:,.0f}/s against {reading:,.0f}/s read; {stored:,} of {count:,} on the topic"
    return [
        Figure(
            what=f"relaying {count:,} {kind.what} / reading their change stream",
            value=ratio,
            unit="x",
            bar=kind.bar,
            at_least=True,
            detail=detail,
        ),
        Figure(
            what=f"processor time of the relay an event, {kind.what}",
            value=processor,
            unit="µs",
            bar=30,
            detail=f"medians of {len(passes)} passes, behind {WARM_UP_PASSES} that warm the broker",
        ),
    ]


METERED = Kind("rows with metrics", UNKEYED, None, {"POSTROOM_METRICS_PORT": "0"})


def metering(sites: Sequence[Site], count: int) -> list[Figure]:
    """Relay a backlog with and without POSTROOM_METRICS_PORT, in turn; what that costs an event."""
    kinds = (WITHOUT_KEYS, METERED)
    passes = [_relay_backlog(site, count, kinds[n % 2]) for n, site in enumerate(sites)]
    warm = passes[WARM_UP_PASSES - 1 :]
    without, metered = (statistics.median(p.processor for p in warm[n::2]) for n in range(2))
    return [
        Figure(
            what="processor time of the relay an event, with metrics / without",
            value=metered / without,
            unit="x",
            bar=1.03,
            detail=f"{metered:.2f} against {without:.2f} µs; medians of {len(warm) // 2} passes",
        )
    ]


def _relay_backlog(site: Site, count: int, kind: Kind) -> Pass:
    with held_back(site, **kind.variables) as worker:
        token = site.checkpoint["resumeToken"]
        fill(site, count, name=kind.name)
        reading = _reading_rate(site, count, token)
    process = psutil.Process(worker.process.pid)
    samples = _sampled(lambda: position(site), process, until=count)
    first = next(sample for sample in samples if sample[1] > 0)
    last = samples[-1]
    started = _first_published(site)
    rate = count / (last[0] - started)
    processor = (last[2] - first[2]) / (last[1] - first[1]) * 1e6
    again = _reading_rate(site, count, token)
    reading = (reading + again) / 2
    worker.stop()
    return Pass(rate, reading, processor, _count(site))


def _sampled(
    read: Callable[[], int], process: psutil.Process, *, until: int
) -> list[tuple[float, int, float]]:
    samples: list[tuple[float, int, float]] = []

    def enough() -> bool:
        now = read()
        used = process.cpu_times()
        samples.append((time.time(), now, used.user + used.system))
        return now >= until

    end = time.monotonic() + 300
    while not enough() and time.monotonic() < end:
        threading.Event().wait(0.02)
    return samples


def _first_published(site: Site) -> float:
    reader = site.pulsar.create_reader(site.topic, pulsar.MessageId.earliest)
    with contextlib.closing(reader):
        return float(reader.read_next(10_000).publish_timestamp()) / 1000


def _count(site: Site) -> int:
    consumer = site.subscribe("count")
    seen = set()
    with contextlib.closing(consumer), contextlib.suppress(pulsar.Timeout):
        while True:
            seen.add(consumer.receive(3000).properties()[wire.ID])
    return len(seen)


READER = """
import sys, time, pymongo, json
uri, database, count, token = sys.argv[1:]
pipeline = [{"$match": {"operationType": "insert", "fullDocument.partitionKey": "default"}}]
outbox = pymongo.MongoClient(uri)[database]["__outboxMessages"]
left = count = int(count)
with outbox.watch(pipeline, start_after=json.loads(token), batch_size=1000) as stream:
    while stream.try_next() is None: pass
    left, began = left - 1, time.time()
    while left: left -= stream.try_next() is not None
print(count / (time.time() - began))
"""


def _reading_rate(site: Site, count: int, token: dict[str, str]) -> float:
    import json

    uri = site.environment["POSTROOM_MONGODB_URI"]
    command = [sys.executable, "-c", READER, uri, site.name, str(count), json.dumps(token)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def memory(site: Site, count: int) -> list[Figure]:
    """Relay very many rows and look at the resident memory."""
    with held_back(site) as worker:
        fill(site, count)
    process = psutil.Process(worker.process.pid)
    resident: list[tuple[int, float]] = []

    def enough() -> bool:
        now = position(site)
        resident.append((now, process.memory_info().rss / 2**20))
        return now >= count

    wait_until(enough, description=f"{count} rows are relayed", seconds=600)
    early = max(rss for at, rss in resident if at <= count / 10)
    most = max(rss for _, rss in resident)
    return [
        Figure(
            what=f"resident memory of the relay over {count:,} rows",
            value=most,
            unit="MiB",
            bar=150,
            detail=f"{early:.0f} MiB within the first tenth",
        ),
        Figure(what="its growth after the first tenth", value=most - early, unit="MiB", bar=5.0),
    ]


def idle(site: Site, seconds: float) -> list[Figure]:
    """Look at a relay that has nothing to do."""
    with relaying(site) as worker:
        process = psutil.Process(worker.process.pid)
        threading.Event().wait(3)
        site.database.command("profile", 2)
        before = process.cpu_times()
        threading.Event().wait(seconds)
        after = process.cpu_times()
        site.database.command("profile", 0)
    commands = site.database["system.profile"].count_documents({"appName": "postroom-relay"})
    used = after.user + after.system - before.user - before.system
    return [
        Figure(what="idle relay, share of a core", value=used / seconds * 100, unit="%", bar=1),
        Figure(what="idle relay, commands to MongoDB", value=commands / seconds, unit="/s", bar=2),
    ]


def latency(site: Site, thin: Site, *, rate: int, seconds: float, rounds: int) -> list[Figure]:
    """Commit single-event transactions at a rate; time them to a plain subscriber.

    Ours and the thinnest path in turn, each beside the other, which is idle: what that costs the
    server, both bear. Each figure is the median of the rounds'. The first half minute of each is
    not counted: while its code is being compiled a broker takes three times the processor time for
    an event, and holds up both paths for as long as 40 ms.
    """
    ours, thinnest = [], []
    warm_up = math.ceil(WARM_UP_SECONDS / seconds)
    with relaying(site), thinnest_path(thin):
        for _ in range(warm_up + rounds):
            ours.append(latencies(site, rate=rate, seconds=seconds))
            thinnest.append(latencies(thin, rate=rate, seconds=seconds))
    p50, p99, achieved = medians(ours[warm_up:])
    thin50, thin99, thin_achieved = medians(thinnest[warm_up:])
    detail = (
        f"p50 {p50:.1f} ms at {achieved:.0f}/s; thinnest path p50 {thin50:.1f}, "
        f"p99 {thin99:.1f} ms at {thin_achieved:.0f}/s"
    )
    name = f"commit to subscriber at {rate:,}/s"
    if rate < 100:
        return [Figure(what=f"{name}, p99", value=p99, unit="ms", bar=15, detail=detail)]
    return [
        Figure(what=f"{name}, p50", value=p50, unit="ms", bar=8, detail=detail),
        Figure(what=f"{name}, p99", value=p99, unit="ms", bar=25, detail=detail),
        Figure(
            what=f"{name}, p99 / thinnest path's",
            value=p99 / thin99,
            unit="x",
            bar=1.5,
            detail=f"medians of {rounds} rounds of {seconds:g} s each, in turn, "
            f"behind {warm_up} that warm the broker",
        ),
    ]


class Round(NamedTuple):
    """The latencies of one round, and the transactions a second that there really were."""

    milliseconds: list[float]
    rate: float


def medians(rounds: Sequence[Round]) -> tuple[float, float, float]:
    """Return the median p50, p99 and rate of several rounds."""
    return (
        statistics.median(percentile(r.milliseconds, 0.5) for r in rounds),
        statistics.median(percentile(r.milliseconds, 0.99) for r in rounds),
        statistics.median(r.rate for r in rounds),
    )


THIN = """
import sys, threading, orjson, pulsar, pymongo
from postroom import pulsar_adapter
from postroom.topics import topic_partition
uri, database, url, topic, *names = sys.argv[1:]
outbox = pymongo.MongoClient(uri)[database]["__outboxMessages"]
client = pulsar.Client(url, logger=pulsar_adapter.silence())
topics = [topic_partition(topic, i) for i in range(len(names))] if names[1:] else [topic]
producers = {
    name: client.create_producer(each, batching_enabled=True, batching_max_publish_delay_ms=1)
    for name, each in zip(names, topics)
}
pipeline = [{"$match": {"operationType": "insert"}}]
with outbox.watch(pipeline, max_await_time_ms=1000) as stream:
    stream.try_next()
    print("ready", flush=True)
    while True:
        change = stream.try_next()
        if change is not None:
            row = change["fullDocument"]
            producers[row["partitionKey"]].send_async(orjson.dumps(row["data"]), None)
"""
_next_number = {"n": 0}


def latencies(
    site: Site,
    *,
    rate: int,
    seconds: float,
    rows: int = 1,
    partitions: Sequence[str] = ("default",),
) -> Round:
    """Commit transactions of so many events to outbox partitions in turn, and time each event."""
    count, first = int(rate * seconds), _next_number["n"]
    _next_number["n"] += count
    consumer = site.pulsar.subscribe(site.topic, f"timing{first}")
    arrived: dict[int, int] = {}

    def receive() -> None:
        with contextlib.suppress(pulsar.Timeout):
            while len(arrived) < count:
                message = consumer.receive(10_000)
                number = orjson.loads(message.data())["data"]["n"]
                arrived[number] = time.time_ns()

    receiver = threading.Thread(target=receive)
    receiver.start()
    committed = committing.commit(
        site, rate=rate, count=count, first=first, rows=rows, partitions=partitions
    )
    receiver.join()
    consumer.close()
    assert len(arrived) == count, f"{len(arrived)} of {count} arrived"
    times = sorted(committed.values())
    # Without the first second, in which topics are opened.
    counted = {n: at for n, at in committed.items() if at > times[0] + 1e9}
    return Round(
        [(arrived[n] - at) / 1e6 for n, at in counted.items()],
        (len(times) - rows) / (times[-1] - times[0]) * 1e9,
    )


@contextlib.contextmanager
def thinnest_path(site: Site, names: Sequence[str] = ("default",)) -> Iterator[None]:
    """Have events relayed with nothing of what keeps them: one change stream, and as it comes.

    Each of several outbox partitions goes to the topic partition that is its own.
    """
    site.database.create_collection(wire.OUTBOX)
    if len(names) > 1:
        site.admin("PUT", "/partitions", body=str(len(names)).encode())
    environment = site.environment
    thin = subprocess.Popen(
        [
            *(sys.executable, "-c", THIN, environment["POSTROOM_MONGODB_URI"], site.name),
            *(environment["POSTROOM_PULSAR_URL"], site.topic, *names),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert thin.stdout is not None
        thin.stdout.readline()
        yield
    finally:
        thin.kill()
        thin.wait()
