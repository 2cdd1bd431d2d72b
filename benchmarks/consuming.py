"""The consumer's figures: rate, latency, memory, batches."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import orjson
import psutil
import pulsar
from bson import ObjectId

from benchmarks.by_hand import THREADS
from benchmarks.relaying import relaying
from benchmarks.report import Figure, percentile
from postroom import wire
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.site import Site, Worker

PATIENTS = 1000
# The first events of a worker just started wait a quarter of a second, for connections and a lane.
WARMING_SECONDS = 2


def send(site: Site, count: int, name: str = "MedicineAssigned") -> None:
    """Put events on the topic, keyed by patient."""
    site.pulsar.subscribe(site.topic, "test", consumer_type=pulsar.ConsumerType.KeyShared).close()
    producer = site.pulsar.create_producer(
        site.topic, block_if_queue_full=True, max_pending_messages=5000
    )
    for n in range(count):
        data = {"medicineId": f"m{n}", "patientId": f"p{n % PATIENTS}", "n": n}
        producer.send_async(
            orjson.dumps({"name": name, "data": data}),
            None,
            properties={wire.ID: str(ObjectId())},
            partition_key=data["patientId"],
        )
    producer.flush()
    producer.close()


def _rate(handled: Callable[[], int], count: int) -> float:
    """Return events a second between a tenth and all of them."""
    marks: dict[int, float] = {}
    tenth = count // 10

    def enough() -> bool:
        now = handled()
        if now >= tenth and not marks:
            marks[now] = time.monotonic()
        return now >= count

    wait_until(enough, description=f"{count} events are handled", seconds=300)
    ((first, began),) = marks.items()
    return (count - first) / (time.monotonic() - began)


class Way(NamedTuple):
    """The application whose handler is measured, and what is expected of it."""

    what: str
    application: str
    bar: float


GROUPED = Way("a worker, 16 events a transaction", "tasks", 1.5)
UNGROUPED = Way("a worker, an event a transaction", "benchmarks.ungrouped", 0.7)


def _consumer(site: Site, way: Way) -> Worker:
    return site.start(f"celery -A {way.application} worker -Q consumer --loglevel=INFO")


def rate(sites: Sequence[Site], count: int, way: Way) -> list[Figure]:
    """Consume with a worker, and with a loop of threads that does the same without Celery.

    The loop has a transaction for each event. Both in turn; medians of the rounds. The first round
    is not counted: the broker has to be warm, as one that runs is.
    """
    ours, theirs = [], []
    for site, by_hand in zip(sites[::2], sites[1::2], strict=True):
        for each in (site, by_hand):
            # Transactions that make a collection conflict, which the loop knows nothing of.
            each.database.create_collection("patientMedicines")
        send(site, count)
        worker = _consumer(site, way)
        ours.append(_rate(site.database[wire.INBOX].estimated_document_count, count))
        worker.stop()
        send(by_hand, count)
        theirs.append(_by_hand(by_hand, count))
    pairs = list(zip(ours, theirs, strict=True))[1:]
    rates = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    detail = "{:,.0f}/s against {:,.0f}/s".format(*rates)
    return [
        Figure(
            what=f"consuming with {way.what} / with a loop of {THREADS} threads",
            value=statistics.median(mine / other for mine, other in pairs),
            unit="x",
            bar=way.bar,
            at_least=True,
            detail=f"{detail}, medians of {len(pairs)} rounds of {count:,} events of "
            "the aid-kit, in turn, behind one to warm up",
        )
    ]


def _by_hand(site: Site, count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.by_hand", site.topic, str(site.folder / "log")]
    with subprocess.Popen(command, env={**os.environ, **site.environment}) as loop:
        try:
            return _rate(site.database[wire.INBOX].estimated_document_count, count)
        finally:
            loop.kill()


def latency(sites: Sequence[Site], *, rate: int, seconds: float) -> list[Figure]:
    """Time events from the commit that wrote them to the commit of their handler.

    With shared transactions and without, in turn, and each as often the first of a pair: the broker
    gets warmer from round to round. Medians of the rounds behind the first pair.
    """
    rounds: dict[str, list[tuple[float, float]]] = {GROUPED.what: [], UNGROUPED.what: []}
    for n, site in enumerate(sites):
        # The first transactions to write it would conflict, and take turns for half a minute.
        site.database.create_collection("patientMedicines")
        way = (GROUPED, UNGROUPED)[(n + n // 2) % 2]
        rounds[way.what].append(_latency(site, way, rate=rate, seconds=seconds))
    grouped, ungrouped = (
        [statistics.median(values) for values in zip(*found[1:], strict=True)]
        for found in rounds.values()
    )
    return [
        Figure(
            what=f"commit of the event to the handler's at {rate}/s, p99",
            value=grouped[1],
            unit="ms",
            bar=60,
            detail=f"p50 {grouped[0]:.1f} ms",
        ),
        Figure(
            what="the same / with an event a transaction",
            value=grouped[1] / ungrouped[1],
            unit="x",
            bar=1.1,
            detail=f"p99 {ungrouped[1]:.1f} ms, p50 {ungrouped[0]:.1f} ms without; medians of "
            f"{len(sites) // 2 - 1} rounds in turn, of workers that run for {WARMING_SECONDS} s",
        ),
    ]


def _latency(site: Site, way: Way, *, rate: int, seconds: float) -> tuple[float, float]:
    warming = int(rate * WARMING_SECONDS)
    count = warming + int(rate * seconds)
    handled: dict[str, int] = {}

    def watch() -> None:
        inserts = [{"$match": {"operationType": "insert"}}]
        with site.database[wire.INBOX].watch(inserts, max_await_time_ms=500) as stream:
            stream.try_next()
            watching.set()
            while len(handled) < count and not over.is_set():
                if change := stream.try_next():
                    handled[change["fullDocument"]["_id"]["eventId"]] = time.time_ns()

    watching, over = threading.Event(), threading.Event()
    consumer = _consumer(site, way)
    consumer.wait_for("Consuming ")
    with relaying(site):
        watcher = threading.Thread(target=watch)
        watcher.start()
        watching.wait()
        committed = _write(site, count, rate)
        wait_until(lambda: len(handled) >= count, description="all are handled")
        over.set()
        watcher.join()
    found = [(handled[event_id] - at) / 1e6 for event_id, at in committed.items()][warming:]
    consumer.stop()
    return percentile(found, 0.5), percentile(found, 0.99)


def _write(site: Site, count: int, rate: int) -> dict[str, int]:
    from postroom import Outbox

    outbox = Outbox(site.database, key="patientId")
    committed: dict[str, int] = {}
    began = time.perf_counter()
    for n in range(count):
        threading.Event().wait(max(0.0, began + n / rate - time.perf_counter()))
        data = {"medicineId": f"m{n}", "patientId": f"p{n % PATIENTS}"}
        (event_id,) = outbox.publish({"name": "MedicineAssigned", "data": data})
        committed[event_id] = time.time_ns()
    return committed


def memory(site: Site, count: int, seconds: float) -> list[Figure]:
    """Let very many events wait, and look at the resident memory of the worker."""
    send(site, count)
    worker = site.consumer()
    worker.wait_for("Consuming ")
    process = psutil.Process(worker.process.pid)
    most = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, process.memory_info().rss / 2**20)
        threading.Event().wait(0.2)
    done = site.database[wire.INBOX].estimated_document_count()
    return [
        Figure(
            what=f"resident memory of the consumer, {count:,} events waiting",
            value=most,
            unit="MiB",
            bar=250,
            detail=f"{done:,} handled in {seconds:.0f} s",
        )
    ]


def batches(one: Site, many: Site, count: int) -> list[Figure]:
    """Do the same work event by event and in batches."""
    rates = []
    for site, name, number in ((one, "One", count), (many, "Many", count * 5)):
        send(site, number, name)
        worker = site.start("celery -A benchmarks.app worker -Q consumer --loglevel=WARNING")
        rates.append(_rate(site.database[wire.INBOX].estimated_document_count, number))
        worker.stop()
    return [
        Figure(
            what="batches of 200 / one by one",
            value=rates[1] / rates[0],
            unit="x",
            bar=5,
            at_least=True,
            detail=f"{rates[1]:,.0f}/s against {rates[0]:,.0f}/s",
        )
    ]


__all__ = ["GROUPED", "UNGROUPED", "batches", "latency", "memory", "rate"]
