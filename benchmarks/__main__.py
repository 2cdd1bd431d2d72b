"""`make bench`: all figures on real Pulsar, in one run on one machine."""

from __future__ import annotations

import functools
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from benchmarks import (
    consuming,
    failover,
    relaying,
    report,
    scheduling,
    sharing,
    streams,
    writing,
)
from devstack.stack import Stack
from tests.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parents[1] / ".devstack" / "benchmarks"


BACKLOGS = {
    "backlog": relaying.WITHOUT_KEYS,
    "backlog-keyed": relaying.WITH_KEYS,
    "backlog-keyed-failover": relaying.KEYS_TO_FAILOVER,
    "backlog-keyed-batched": relaying.KEYS_BATCHED,
}


def plan(site: Callable[[], Site]) -> dict[str, Callable[[], list[report.Figure]]]:
    """Name what is measured; each with sites of its own."""

    def backlog(kind: relaying.Kind) -> list[report.Figure]:
        return relaying.backlog([site() for _ in range(12)], 100_000, kind)

    return {
        **{name: functools.partial(backlog, kind) for name, kind in BACKLOGS.items()},
        "metering": lambda: relaying.metering([site() for _ in range(14)], 100_000),
        "latency-1000": lambda: relaying.latency(site(), site(), rate=1000, seconds=6, rounds=7),
        "latency-10": lambda: relaying.latency(site(), site(), rate=10, seconds=12, rounds=3),
        "memory": lambda: relaying.memory(site(), 1_000_000),
        "idle": lambda: relaying.idle(site(), 30),
        "failover": lambda: failover.failover(site()),
        "sharing": lambda: sharing.processor([site() for _ in range(9)], 200_000),
        "sharing-latency": lambda: sharing.latency(
            {each: site() for each in (sharing.ONE, sharing.FOUR)},
            {each: site() for each in (sharing.ONE, sharing.FOUR)},
            rate=1000,
            rows=4,
            seconds=6,
            rounds=7,
        ),
        "sharing-moves": lambda: sharing.moves(site()),
        "streams": lambda: streams.streams(site),
        "scheduled-latency": lambda: scheduling.latency(site(), rate=100, seconds=15),
        "scheduled-burst": lambda: scheduling.burst([site() for _ in range(9)], 10_000),
        "publish": lambda: writing.publish(site(), 3000),
        "consuming": lambda: consuming.rate([site() for _ in range(8)], 5000, consuming.UNGROUPED),
        "consuming-grouped": lambda: consuming.rate(
            [site() for _ in range(8)], 8000, consuming.GROUPED
        ),
        "consuming-latency": lambda: consuming.latency(
            [site() for _ in range(16)], rate=100, seconds=10
        ),
        "consuming-memory": lambda: consuming.memory(site(), 1_000_000, 30),
        "consuming-batches": lambda: consuming.batches(site(), site(), 5000),
    }


@click.command()
@click.argument("names", nargs=-1)
def main(names: tuple[str, ...]) -> None:
    """Measure everything, or only what is named."""
    console = Console(stderr=True)
    folder = Path(tempfile.mkdtemp(prefix="postroom-bench-"))
    stack = Stack(folder, real_pulsar=True, given={})
    figures: list[report.Figure] = []
    sites: list[Site] = []

    def site() -> Site:
        own = Path(tempfile.mkdtemp(dir=folder))
        sites.append(Site(stack.environment, own))
        return sites[-1]

    stack.start()
    try:
        for name, measure in plan(site).items():
            if names and name not in names:
                continue
            console.print(f"{name} …", style="dim")
            try:
                figures += measure()
            finally:
                while sites:
                    sites.pop().close()
    finally:
        stack.stop()
        if figures:
            report.show(figures)
            path = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
            report.write(figures, path)
            console.print(f"written to {path}", style="dim")


if __name__ == "__main__":
    main()
