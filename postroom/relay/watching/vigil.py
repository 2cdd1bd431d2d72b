"""The vigil: whether MongoDB is at work at a call that has not come back.

Reading through hours of the oplog takes a change stream's call as long as it takes, and no timeout
may end that. So a call that lasts is asked after, on another connection: while the server is at
work it is waited for, and what it does is said; where it is not, no answer will come.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo
from pymongo import monitoring

from postroom import errors
from postroom.store.values import ResumeToken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymongo import MongoClient

__all__ = ["Vigil"]

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 8.0
LOOK_EVERY_SECONDS = 3.0
SAY_EVERY_SECONDS = 10.0
# A reply of 16 MiB may be on its way for so long after the server has done its work.
UNDERWAY_SECONDS = 15.0
# Where the server does not let itself be asked.
LONGEST_SECONDS = 600.0


@dataclass(slots=True, kw_only=True, eq=False)
class _Call:
    command: str
    connection: int | None
    since: str
    began: float = field(default_factory=time.monotonic)
    missed_since: float | None = None
    looked: float = 0.0
    said: float = 0.0


class Vigil(monitoring.CommandListener):
    """Listens to the client that reads, which has no timeout; look() about once a second.

    The driver tells it of calls in whatever thread makes them: the reader's, beside it one that an
    earlier term has left behind, and the driver's own. look() is the term's thread's. A lock holds
    which calls there are; what is noted of one is look()'s alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._since = ""

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Note a call."""
        begins = _begins_at(event.command) if event.command_name == "aggregate" else None
        with self._lock:
            self._since = self._since if begins is None else begins
            self._calls[event.request_id] = _Call(
                command=event.command_name,
                connection=event.server_connection_id,
                since=self._since,
            )

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Note that a call has come back."""
        self._ended(event.request_id)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Note that a call has come back."""
        self._ended(event.request_id)

    def _ended(self, request: int) -> None:
        with self._lock:
            call = self._calls.pop(request, None)
            if call is not None and call.command == "getMore":
                # Only the first one has a long way to go.
                self._since = ""

    def look(self, client: MongoClient[Any]) -> None:
        """Ask, by another client of the same servers, after each call that lasts.

        Raises:
            TermEnded: no answer will come to one.
            pymongo.errors.PyMongoError: the server cannot be asked.

        """
        with self._lock:
            calls = list(self._calls.values())
        now = time.monotonic()
        for call in calls:
            if now - max(call.looked, call.began + PATIENCE_SECONDS) > LOOK_EVERY_SECONDS:
                call.looked = now
                self._ask_after(call, client, seconds=now - call.began)

    def _ask_after(self, call: _Call, client: MongoClient[Any], *, seconds: float) -> None:
        at_work = _is_at_work(client, call.connection)
        if at_work is None:
            missed = seconds > LONGEST_SECONDS
        else:
            now = time.monotonic()
            call.missed_since = None if at_work else call.missed_since or now
            missed = not at_work and now - (call.missed_since or now) > UNDERWAY_SECONDS
        if missed and self._is_under_way(call):
            raise errors.TermEnded(
                f"No answer to the command `{call.command}`, by which the outbox is read, has come "
                f"from MongoDB for {seconds:.0f} s, and the server is not at work at it: its "
                "connection is cut somewhere between. A new term begins"
            )
        if at_work and time.monotonic() - call.said > SAY_EVERY_SECONDS:
            call.said = time.monotonic()
            logger.info(
                "MongoDB has been at work for %.0f s at the command `%s`, by which the outbox is "
                "read%s; it is waited for",
                seconds,
                call.command,
                call.since,
                extra={"action": "patience"},
            )

    def _is_under_way(self, call: _Call) -> bool:
        with self._lock:
            return call in self._calls.values()


def _is_at_work(client: MongoClient[Any], connection: int | None) -> bool | None:
    """Say whether the server is at work for one of its connections; None if it does not tell."""
    if connection is None:
        return None
    mine = {"$match": {"connectionId": connection, "active": True}}
    try:
        hello = client.admin.command("hello")
        stage = {"localOps": True} if hello.get("msg") == "isdbgrid" else {}
        found = client.admin.aggregate([{"$currentOp": stage}, mine], maxTimeMS=5_000)
        return any(True for _ in found)
    except mongo.ExecutionTimeout:
        raise
    except mongo.OperationFailure:
        return None


def _begins_at(command: Mapping[str, Any]) -> str:
    """Say from when on a change stream reads the oplog, in words that fit behind others."""
    stages = command.get("pipeline") or [{}]
    token = stages[0].get("$changeStream", {}).get("startAfter")
    reached = None if token is None else ResumeToken(token).cluster_time
    if reached is None:
        return ""
    return (
        f": reading through the oplog, from {reached.as_datetime():%Y-%m-%d %H:%M:%S} UTC on, with "
        "all that other collections wrote since"
    )
