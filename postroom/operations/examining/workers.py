"""Examining the running workers: settings in which they differ, as each of them tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom import broker
from postroom.findings import Finding, Grade
from postroom.secured import SECRETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from postroom.settings import Settings

__all__ = ["examine", "told"]

HERE = "this process"
# What workers of one application differ in by design.
OWN = {
    "concurrency",
    "metrics_port",
    "partition",
    "prefetch",
    "subscription",
    "topic",
    "mutex_topic",
}
ADDRESSES = ("_uri", "_url")
FILES = ("_file", "_directory")


def told(settings: Settings) -> dict[str, str]:
    """Return the settings as a worker tells them: of an address its hosts, of a secret nothing."""
    found = {}
    for name, value in settings:
        if name.endswith(FILES) or (name in SECRETS and not name.endswith(ADDRESSES)):
            continue
        found[name] = broker.masked(value) if name.endswith(ADDRESSES) and value else str(value)
    return found


def examine(settings: Settings, workers: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    """Compare what the workers have told, by worker, with each other and with this process."""
    if not workers:
        return [
            Finding(
                what="workers",
                found="No running worker has answered",
                grade=Grade.WARN,
                remedy="celery -A … inspect ping",
            )
        ]
    differing = list(_differing({**workers, HERE: told(settings)}))
    if differing:
        return differing
    count = f"{len(workers)} workers" if len(workers) > 1 else "The one worker"
    return [Finding(what="workers", found=f"{count} and {HERE} agree in their settings")]


def _differing(workers: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    names = sorted({name for told_ in workers.values() for name in told_} - OWN)
    for name in names:
        by_value: dict[str, list[str]] = {}
        for worker, told_ in sorted(workers.items()):
            if name in told_:
                by_value.setdefault(told_[name], []).append(worker)
        if len(by_value) > 1:
            shown = "; ".join(f"{value} in {_some(of)}" for value, of in by_value.items())
            yield Finding(
                what=f"setting POSTROOM_{name.upper()}",
                found=f"It differs: {shown}",
                grade=Grade.WARN,
                remedy="Set it alike, and start again those that differ",
            )


def _some(workers: list[str]) -> str:
    more = f" and {len(workers) - 3} more" if len(workers) > 3 else ""
    return ", ".join(workers[:3]) + more
