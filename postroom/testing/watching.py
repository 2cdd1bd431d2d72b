"""Watching: which writes leave this process for MongoDB, of which session, and what they do."""

from __future__ import annotations

import contextlib
import threading
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pymongo import monitoring

from postroom.testing.effect import Effect, written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Sent", "Watch", "Write", "register", "watch"]

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


@dataclass(slots=True, kw_only=True)
class Sent:
    """A write, the session of its transaction, or None, and its effect once MongoDB has replied."""

    session_id: Any
    write: Write
    effect: Effect = field(default_factory=Effect)


class Watch(monitoring.CommandListener):
    """Notes the writes of all clients that were made since it was registered. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[Sent] | None = None
        self._unanswered: dict[int, Sent] = {}

    @contextlib.contextmanager
    def on(self) -> Iterator[list[Sent]]:
        """Note what is sent within the block."""
        seen: list[Sent] = []
        with self._lock:
            self._seen = seen
        try:
            yield seen
        finally:
            with self._lock:
                self._seen = None
                self._unanswered.clear()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Note a write."""
        if self._seen is None or event.command_name not in WRITES:
            return
        command = event.command
        session = command.get("lsid") if command.get("autocommit") is False else None
        write = Write(
            command=event.command_name,
            collection=_collection(event.database_name, event.command_name, command),
            where=_asked_by(),
        )
        with self._lock:
            if self._seen is not None:
                sent = Sent(session_id=session, write=write)
                self._seen.append(sent)
                self._unanswered[event.request_id] = sent

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Note what a write has done."""
        if self._seen is None or event.command_name not in WRITES:
            return
        with self._lock:
            if (sent := self._unanswered.pop(event.request_id, None)) is not None:
                sent.effect = written(event.command_name, sent.write.collection, event.reply)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Do nothing: it has done nothing, or nobody knows."""


watch = Watch()
_registered = threading.Lock()


def register() -> None:
    """Watch all clients that are made from now on; once for a process."""
    if _registered.acquire(blocking=False):
        monitoring.register(watch)


def _collection(database: str, name: str, command: Mapping[str, Any]) -> str:
    if name == "bulkWrite":  # a client's own, of several collections perhaps
        return ", ".join(each["ns"] for each in command.get("nsInfo", ()))
    return f"{database}.{command.get(name)}"


def _asked_by() -> str:
    for frame in reversed(traceback.extract_stack()):
        if not any(part in frame.filename for part in BETWEEN):
            return f"{frame.filename}:{frame.lineno}"
    return ""
