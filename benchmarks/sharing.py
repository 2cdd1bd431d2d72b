"""What a divided outbox costs its relays, and how long what moves between them stands still."""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import statistics
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
from bson import ObjectId

from benchmarks.relaying import WARM_UP_SECONDS, latencies, medians, thinnest_path
from benchmarks.report import Figure
from postroom import wire
from postroom.partitioning import Partitioning
from tests.flow import Flow, owners, start_workers, wait_for_shares
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.relaying import Round
    from tests.site import Site, Worker

__all__ = ["FOUR", "ONE", "latency", "moves", "processor"]

WARM_UP_PASSES = 3
# Of a backlog: before it, and before each outbox partition has begun, terms are opened; behind it
# outbox partitions end one after another.
MEASURED = (0.15, 0.9)
CHUNK = 1000


class Setup(NamedTuple):
    """So many outbox partitions, and relay workers that share them."""

    partitions: int
    relays: int

    def __str__(self) -> str:
        return f"N = {self.partitions} in {self.relays} relay{'s' if self.relays > 1 else ''}"


class Pass(NamedTuple):
    """One backlog: microseconds of all relays' processor time an event, and events a second."""

    processor: float
    rate: float


class Sample(NamedTuple):
    """By then: events relayed, outbox partitions begun, the relays' seconds of processor time."""

    at: float
    relayed: int
    begun: int
    used: float


ONE, FOUR, EIGHT, SHARED = Setup(1, 1), Setup(4, 1), Setup(8, 1), Setup(4, 2)


def processor(sites: Sequence[Site], count: int) -> list[Figure]:
    """Relay a backlog of keyed rows with each setup in turn; medians, behind what warms up."""
    setups = itertools.cycle((ONE, EIGHT, SHARED))
    passes: dict[Setup, list[Pass]] = {ONE: [], EIGHT: [], SHARED: []}
    for number, (site, setup) in enumerate(zip(sites, setups, strict=False)):
        found = _relay_backlog(site, count, setup)
        if number >= WARM_UP_PASSES:
            passes[setup].append(found)
    middle = {
        setup: Pass(*map(statistics.median, zip(*each, strict=True)))
        for setup, each in passes.items()
    }
    one = middle[ONE]
    return [
        Figure(
            what=f"processor time of all relays an event, {setup} / {ONE}, {count:,} keyed rows",
            value=middle[setup].processor / one.processor,
            unit="x",
            bar=bar,
            detail=f"{middle[setup].processor:.1f} against {one.processor:.1f} µs: "
            f"{1e6 / middle[setup].processor:,.0f} against {1e6 / one.processor:,.0f} events a "
            f"second of processor time; {middle[setup].rate:,.0f}/s against {one.rate:,.0f}/s; "
            f"medians of {len(passes[setup])} passes",
        )
        for setup, bar in ((EIGHT, 1.4), (SHARED, 1.2))
    ]


def rows(count: int, first: int, *, partitions: int) -> list[dict[str, Any]]:
    """Make rows with a key, as a writer of a divided outbox does."""
    partitioning = Partitioning(count=partitions)
    return [
        {
            "_id": ObjectId(),
            "partitionKey": partitioning.names[partitioning.of_key(str(n))],
            "occurredAt": datetime.now(UTC),
            "key": str(n),
            "data": {
                "name": "MedicineAssigned",
                "data": {"medicineId": str(ObjectId()), "patientId": str(n)},
            },
        }
        for n in range(first, first + count)
    ]


@contextlib.contextmanager
def relays(site: Site, setup: Setup, **variables: str) -> Iterator[list[Worker]]:
    """Lend workers that relay all outbox partitions."""
    if setup.partitions > 1:
        variables["POSTROOM_PARTITIONS"] = str(setup.partitions)
    workers = [site.relay(**variables) for _ in range(setup.relays)]
    if setup.partitions > 1:
        wait_for_shares(site, *[setup.partitions // setup.relays] * setup.relays)
    relayed = {"resumeToken": {"$ne": None}, "scan": None}
    checkpoints = site.database[wire.CHECKPOINTS]

    def all_relay() -> bool:
        return checkpoints.count_documents(relayed) == setup.partitions

    wait_until(all_relay, description="all outbox partitions are relayed")
    yield workers
    for worker in workers:
        worker.stop()


def _relay_backlog(site: Site, count: int, setup: Setup) -> Pass:
    checkpoints = site.database[wire.CHECKPOINTS]
    with relays(site, setup, POSTROOM_CHECKPOINT_SECONDS="0.05") as workers:
        checkpoints.update_many({}, {"$set": {"pausedBy": "benchmark"}})

        def paused() -> bool:
            return sum(w.text().count("is paused") for w in workers) == setup.partitions

        wait_until(paused, description="all stands still")
        for first in range(0, count, CHUNK):
            some = rows(CHUNK, first, partitions=setup.partitions)
            site.outbox.insert_many(some, ordered=False)
        processes = [psutil.Process(worker.process.pid) for worker in workers]
        checkpoints.update_many({}, {"$unset": {"pausedBy": ""}})
        samples = _sampled(site, processes, count)
    earliest, latest = (part * count for part in MEASURED)
    begin = next(s for s in samples if s.relayed >= earliest and s.begun == setup.partitions)
    end = next(s for s in samples if s.relayed >= latest)
    events = end.relayed - begin.relayed
    return Pass((end.used - begin.used) / events * 1e6, events / (end.at - begin.at))


def _sampled(site: Site, processes: Sequence[psutil.Process], count: int) -> list[Sample]:
    samples: list[Sample] = []

    def enough() -> bool:
        rows = site.database[wire.CHECKPOINTS].find({}, {"position": 1})
        positions = [row.get("position") or 0 for row in rows]
        used = [process.cpu_times() for process in processes]
        samples.append(
            Sample(
                at=time.monotonic(),
                relayed=sum(positions),
                begun=sum(position > 0 for position in positions),
                used=sum(u.user + u.system for u in used),
            )
        )
        return sum(positions) >= count

    end = time.monotonic() + 200
    while not enough() and time.monotonic() < end:
        threading.Event().wait(0.05)
    return samples


def latency(
    ours: Mapping[Setup, Site],
    thinnest: Mapping[Setup, Site],
    *,
    rate: int,
    rows: int,
    seconds: float,
    rounds: int,
) -> list[Figure]:
    """Commit events at a rate, `rows` of them in a transaction, with N = 4 and N = 1 in turn.

    Each transaction has events of all outbox partitions, which is the hardest for N = 4: no reply
    has two of them. Beside them, in turn as well, the thinnest path that there is for both: what it
    costs services and machine to store four batches in the place of one. Medians.
    """
    names = {setup: Partitioning(count=setup.partitions).names for setup in ours}
    found: dict[Site, list[Round]] = {each: [] for each in (*ours.values(), *thinnest.values())}
    warm_up = math.ceil(WARM_UP_SECONDS / seconds)
    with contextlib.ExitStack() as all_work:
        for setup in ours:
            all_work.enter_context(relays(ours[setup], setup))
            all_work.enter_context(thinnest_path(thinnest[setup], names[setup]))
        for _ in range(warm_up + rounds):
            for setup in ours:
                for site in (ours[setup], thinnest[setup]):
                    found[site].append(
                        latencies(
                            site, rate=rate, seconds=seconds, rows=rows, partitions=names[setup]
                        )
                    )
    counted = {site: each[warm_up:] for site, each in found.items()}
    made_of = (
        f"medians of {rounds} rounds of {seconds:g} s each, in turn, behind {warm_up} that warm "
        "the broker"
    )
    name = f"commit to subscriber at {rate:,}/s in transactions of {rows}, p99, {FOUR} / {ONE}"
    thin = "the same by the thinnest path, which loses events"
    return [
        _slower(name, counted[ours[ONE]], counted[ours[FOUR]], bar=1.3, made_of=made_of),
        _slower(thin, counted[thinnest[ONE]], counted[thinnest[FOUR]], bar=None, made_of=made_of),
    ]


def _slower(
    what: str, one: Sequence[Round], four: Sequence[Round], *, bar: float | None, made_of: str
) -> Figure:
    one50, one99, one_rate = medians(one)
    four50, four99, four_rate = medians(four)
    return Figure(
        what=what,
        value=four99 / one99,
        unit="x",
        bar=bar,
        detail=f"p99 {four99:.1f} against {one99:.1f} ms, p50 {four50:.1f} against {one50:.1f} "
        f"ms, at {four_rate:.0f}/s against {one_rate:.0f}/s; {made_of}",
    )


def moves(site: Site) -> list[Figure]:
    """Have a worker join, leave, be killed and be frozen; time what the others' events waited.

    Twenty-five events a second of each of eight outbox partitions, two and three workers.
    """
    found: list[Figure] = []
    with Flow(site, 8) as flow:
        start_workers(site, 2, of=8)
        wait_for_shares(site, 4, 4)
        flow.caught_up()
        before, since = owners(site), time.monotonic()
        (third,) = start_workers(site, 1, of=8)
        third.wait_for(" ready.")
        ready = time.monotonic() - since
        after = wait_for_shares(site, 3, 3, 2)
        balanced = time.monotonic() - since
        flow.caught_up()
        moved = [part for part in after if after[part] != before[part]]
        stayed = [part for part in after if part not in moved]
        found += [
            _seconds("a third worker's start to shares of 3, 3 and 2", balanced, bar=10),
            _seconds("of that, until Celery's worker was ready to begin", ready),
            _seconds(
                "an event of a moved outbox partition waits", flow.worst(since, parts=moved), 1
            ),
            _seconds("one of the others", flow.worst(since, parts=stayed)),
        ]
        for number, bar in ((signal.SIGTERM, 1), (signal.SIGKILL, 2), (signal.SIGSTOP, 8)):
            found.append(_ended(site, flow, third, number, bar))
            third.kill()
            (third,) = start_workers(site, 1, of=8)
            wait_for_shares(site, 3, 3, 2)
            flow.caught_up()
        flow.ended()
    return found


def _ended(site: Site, flow: Flow, worker: Worker, number: signal.Signals, bar: float) -> Figure:
    name = next(n for n in owners(site).values() if f"-{worker.process.pid}-" in n)
    since = time.monotonic()
    worker.signal(number)
    wait_for_shares(site, 4, 4, without=[name])
    flow.caught_up()
    return _seconds(
        f"{number.name} of a worker: an event of its share waits", flow.worst(since), bar
    )


def _seconds(what: str, value: float, bar: float | None = None) -> Figure:
    return Figure(what=what, value=value, unit="s", bar=bar)
