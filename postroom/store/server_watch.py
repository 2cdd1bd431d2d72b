"""ServerWatch: whether a client of ours has lost sight of one of its servers."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from pymongo import monitoring

if TYPE_CHECKING:
    from pymongo import MongoClient

__all__ = ["ServerWatch"]

# The driver tells its listeners once a second.
LAG_SECONDS = 1.2
PAUSE_SECONDS = 0.1


class ServerWatch(monitoring.ServerListener):
    """Tells an outage of our servers, as our own client sees it, from any other. Thread-safe.

    A lost connection or a primary that steps down makes the driver doubt the server until it has
    answered again; it says so to this listener, which has to be given to the client.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._doubted_at = float("-inf")

    def opened(self, event: monitoring.ServerOpeningEvent) -> None:
        """Take no notice."""

    def closed(self, event: monitoring.ServerClosedEvent) -> None:
        """Take no notice."""

    def description_changed(self, event: monitoring.ServerDescriptionChangedEvent) -> None:
        """Note a server that was known, or a primary, and is not any more."""
        before, now = event.previous_description, event.new_description
        # One that tells itself that it has stepped down is never doubted, though calls to it fail.
        if (before.is_server_type_known and not now.is_server_type_known) or (
            before.is_writable and not now.is_writable
        ):
            with self._lock:
                self._doubted_at = time.monotonic()

    def has_lost_one(self, client: MongoClient[Any], *, since: float) -> bool:
        """Say whether a server was lost since that monotonic time, or is now.

        Waits for a second at most, since the driver tells what it has seen only then.
        """
        end = time.monotonic() + LAG_SECONDS
        while not self._lost(client, since):
            if time.monotonic() > end:
                return False
            time.sleep(PAUSE_SECONDS)
        return True

    def _lost(self, client: MongoClient[Any], since: float) -> bool:
        servers = client.topology_description.server_descriptions().values()
        if not all(server.is_server_type_known for server in servers):
            return True
        return self.is_doubted(since=since)

    def is_doubted(self, *, since: float) -> bool:
        """Say whether the driver has told of a server that was lost since a monotonic time."""
        with self._lock:
            return self._doubted_at >= since
