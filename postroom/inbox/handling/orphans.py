"""Orphans: the open transactions of killed consumers, ended at once instead of after a minute."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

if TYPE_CHECKING:
    from pymongo import MongoClient

__all__ = ["Orphans", "app_name"]

logger = logging.getLogger(__name__)

PREFIX = "postroom-inbox"
# The server's own listing is not free; many handlers may meet the same orphan.
PAUSE_SECONDS = 1.0


def app_name() -> str:
    """Return a name under which the server knows the connections of this process and no other."""
    return f"{PREFIX} {socket.gethostname()[:60]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


class Orphans:
    """Finds transactions that nobody can end any more, and ends them. Thread-safe.

    A consumer that is killed leaves its open transactions on the server, which holds their rows
    for transactionLifetimeLimitSeconds, 60 unless set; the events come to another consumer within
    milliseconds and would conflict all that time. A transaction is an orphan when its session is
    idle and no connection of the process that began it is left. A frozen process still has some.

    Both commands are open to every user for sessions of its own.
    https://www.mongodb.com/docs/manual/reference/operator/aggregation/currentOp/
    """

    def __init__(self, client: MongoClient[Any]) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._again_at = 0.0
        self._refused = False

    def end(self) -> int:
        """End the orphans there are, unless that was done just now; return how many."""
        with self._lock:
            if self._refused or time.monotonic() < self._again_at:
                return 0
            try:
                return self._end()
            except mongo.OperationFailure as error:
                self._refused = True
                logger.warning(
                    "MongoDB refuses to list this user's transactions (%s); those of a killed "
                    "consumer hold up its events for a minute",
                    error.code,
                )
                return 0
            finally:
                self._again_at = time.monotonic() + PAUSE_SECONDS

    def _end(self) -> int:
        found = self._client.admin.aggregate(
            [
                {"$currentOp": {"idleConnections": True, "idleSessions": True}},
                {"$match": {"appName": {"$regex": f"^{PREFIX} "}}},
                {"$project": {"appName": 1, "type": 1, "lsid": 1, "transaction": 1}},
            ]
        )
        operations = list(found)
        alive = {each["appName"] for each in operations if each["type"] == "op"}
        orphans = [
            {"id": each["lsid"]["id"]}
            for each in operations
            if each["type"] == "idleSession"
            and "transaction" in each
            and each["appName"] not in alive
        ]
        if orphans:
            self._client.admin.command("killSessions", orphans)
            logger.info("%d transactions of killed consumers were ended", len(orphans))
        return len(orphans)
