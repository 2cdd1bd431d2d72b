"""Watching: which writes leave this process for MongoDB, and which of them belong to no session."""

from __future__ import annotations

import contextlib
import threading
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo import monitoring

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Watch", "Write", "register", "watch"]

WRITES = frozenset({"insert", "update", "delete", "findAndModify", "bulkWrite"})
# What is between a write and whoever has asked for it.
BETWEEN = ("/pymongo/", "/postroom/", "/concurrent/", "/threading.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A write that was sent, and the line of the application that asked for it, if known."""

    command: str
    collection: str
    where: str

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.command} on {self.collection}" + (f" ({self.where})" if self.where else "")


class Watch(monitoring.CommandListener):
    """Notes the writes of all clients that were made since it was registered. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[tuple[Any, Write]] | None = None

    @contextlib.contextmanager
    def on(self) -> Iterator[list[tuple[Any, Write]]]:
        """Note what is sent within the block: the session of its transaction, or None, and what."""
        seen: list[tuple[Any, Write]] = []
        with self._lock:
            self._seen = seen
        try:
            yield seen
        finally:
            with self._lock:
                self._seen = None

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Note a write."""
        if self._seen is None or event.command_name not in WRITES:
            return
        command = event.command
        session = command.get("lsid") if command.get("autocommit") is False else None
        write = Write(
            command=event.command_name,
            collection=f"{event.database_name}.{command.get(event.command_name)}",
            where=_asked_by(),
        )
        with self._lock:
            if self._seen is not None:
                self._seen.append((session, write))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Do nothing."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Do nothing."""


watch = Watch()
_registered = threading.Lock()


def register() -> None:
    """Watch all clients that are made from now on; once for a process."""
    if _registered.acquire(blocking=False):
        monitoring.register(watch)


def _asked_by() -> str:
    for frame in reversed(traceback.extract_stack()):
        if not any(part in frame.filename for part in BETWEEN):
            return f"{frame.filename}:{frame.lineno}"
    return ""
