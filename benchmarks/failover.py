"""How long nothing is relayed when the leader is stopped, killed or frozen."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from typing import TYPE_CHECKING

import pulsar

from benchmarks.relaying import rows
from benchmarks.report import Figure
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site, Worker

BARS = {"SIGTERM": 1.0, "SIGKILL": 2.0, "SIGSTOP": 8.0}
TIMES = 3


def failover(site: Site) -> list[Figure]:
    """Signal the leader while events are written; time the standby's first event, the worst one."""
    figures = []
    for name, bar in BARS.items():
        gaps = [_gap(site, signal.Signals[name]) for _ in range(TIMES)]
        figures.append(
            Figure(
                what=f"{name} of the leader to the standby's first event",
                value=max(gaps),
                unit="s",
                bar=bar,
                detail=f"the worst of {', '.join(f'{gap:.2f}' for gap in sorted(gaps))}",
            )
        )
    return figures


def _gap(site: Site, number: signal.Signals) -> float:
    leader, standby = site.relay_and_standby()
    arrived: list[float] = []
    over = threading.Event()
    consumer = site.pulsar.subscribe(site.topic, f"gap-{leader.process.pid}")

    def receive() -> None:
        while not over.is_set():
            try:
                consumer.receive(100)
            except pulsar.Timeout:
                continue
            arrived.append(time.monotonic())

    def write() -> None:
        while not over.wait(0.02):
            site.outbox.insert_many(rows(1))

    threads = [threading.Thread(target=target) for target in (receive, write)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(arrived) > 20, description="the leader relays")
    leader.signal(number)
    at = time.monotonic()
    wait_until(lambda: "Relaying partition" in standby.text(), description="the standby relays")
    found = _first_of_standby(arrived, at)
    over.set()
    for thread in threads:
        thread.join()
    consumer.close()
    _end(leader, standby)
    return found


def _first_of_standby(arrived: list[float], at: float) -> float:
    """Return the end of the longest silence after the signal."""

    def silence() -> float:
        times = [at, *[moment for moment in arrived if moment > at]]
        gaps = [(later - earlier, later) for earlier, later in itertools.pairwise(times)]
        return max(gaps)[1] - at if len(gaps) > 20 else 0.0

    return wait_until(silence, description="the standby's events arrive")


def _end(*workers: Worker) -> None:
    for worker in workers:
        worker.kill()


__all__ = ["failover"]
