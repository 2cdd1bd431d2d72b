"""Report: figures against their bars, as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Figure", "machine", "percentile", "show", "write"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number, the bar it is held against, and what it was made of."""

    what: str
    value: float
    unit: str
    bar: float | None = None
    at_least: bool = False
    detail: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether it is on the right side of its bar."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def machine() -> dict[str, Any]:
    """Say what was measured on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def show(figures: Sequence[Figure]) -> None:
    """Print the table."""
    table = Table(title="All services and workers on the same machine", title_justify="left")
    for title in ("what", "measured", "bar", "", "detail"):
        table.add_column(title, overflow="fold")
    for figure in figures:
        sign = "≥" if figure.at_least else "≤"
        bar = "" if figure.bar is None else f"{sign} {figure.bar:g} {figure.unit}"
        verdict = {None: "", True: "[green]holds[/]", False: "[red]does not[/]"}[figure.holds]
        value = f"{figure.value:.3g} {figure.unit}"
        table.add_row(figure.what, value, bar, verdict, figure.detail)
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in machine().items()), style="dim")


def write(figures: Sequence[Figure], path: Path) -> None:
    """Write the figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [{**asdict(figure), "holds": figure.holds} for figure in figures]
    path.write_text(json.dumps({"machine": machine(), "figures": found}, indent=2))
