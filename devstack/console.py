"""The screen of `make run`: what runs where, then a line for each event."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["LogTail", "Screen"]

CONSUMED = re.compile(r"Consumed event for medicine (\S+) and patient (\S+)")


class Screen:
    """Plain lines, so that they can be piped and scrolled."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    def overview(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Show what runs where, and where its log is."""
        self._console.print("\n[bold]postroom[/], the aid-kit. Ctrl-C stops everything.\n")
        for name, where, log in rows:
            self._console.print(f"[bold]{name:<12}[/] {where:<48} [dim]{log}[/]")
        self._console.print()

    def line(self, verb: str, text: str, *, style: str = "default") -> None:
        """Show one thing that happened."""
        clock = time.strftime("%H:%M:%S")
        self._console.print(f"[dim]{clock}[/]  [{style}]{verb:<9}[/]  {text}")

    def problem(self, sentence: str) -> None:
        """Show what went wrong."""
        self._console.print(f"[red]{sentence}[/]", markup=True)


class LogTail:
    """Reads what a worker has logged since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def consumed(self) -> list[tuple[str, str]]:
        """Return the (medicine, patient) of each event consumed since."""
        with self._path.open(errors="replace") as log:
            log.seek(self._offset)
            text = log.read()
        # A line that is only half written is left for the next look.
        whole = text.rpartition("\n")[0]
        self._offset += len(whole.encode())
        return CONSUMED.findall(whole)
