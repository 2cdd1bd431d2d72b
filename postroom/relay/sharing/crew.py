"""The crew: all relays of one worker that shares outbox partitions with others."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Protocol

from postroom.relay.sharing.pool import Pool
from postroom.relay.stand import served_now
from postroom.sentences import Sentences
from postroom.store import clients
from postroom.supervision import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymongo.database import Database

    from postroom.partitioning import Partitioning
    from postroom.relay.relay import Relay
    from postroom.routing import Routing
    from postroom.settings import Settings

__all__ = ["Crew", "Host"]

logger = logging.getLogger(__name__)


class Host(Protocol):
    """The worker that a crew is of; called in the crew's thread."""

    def comes(self, relay: Relay) -> None:
        """Hear of a relay that has not begun yet, and run it in a thread of its own."""

    def goes(self, relay: Relay) -> None:
        """Wait, for a bounded time, for the end of a relay whose outbox partition is closed."""


class Crew:
    """Serves a share of the outbox partitions that there are, also when the outbox is divided anew.

    run() in a thread of its own; all else from any thread. `pins` are the numbers of those that it
    is there for, if it is not there for all.
    """

    def __init__(
        self,
        settings: Settings,
        routing: Routing,
        *,
        host: Host,
        pins: frozenset[int] | None = None,
        subscriptions: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings = settings
        self._routing = routing
        self._host = host
        self._pins = pins
        self._subscriptions = subscriptions
        self._stopping = threading.Event()
        self._pool: Pool | None = None

    def run(self) -> None:
        """Serve until stop() is called.

        Raises:
            ConfigurationError: the outbox is divided otherwise than this worker was told, or the
                relay cannot work with the services as they are set up.

        """
        sentences = Sentences(
            mongodb_uri=self._settings.mongodb_uri,
            pulsar_url=self._settings.pulsar_url,
            next_step="it is looked at again",
        )
        Supervisor(
            self._serve_generation,
            stopping=self._stopping,
            sentence=sentences.of,
            waiting=lambda _: None,
            extra={"action": "sharing"},
        ).supervise()

    def stop(self) -> None:
        """Have all relays finish what is in flight and give their locks back."""
        self._stopping.set()
        pool = self._pool
        if pool is not None:
            pool.stop()

    def snapshots(self) -> list[dict[str, Any]]:
        """Return the numbers of each relay, as JSON can hold them."""
        pool = self._pool
        return [] if pool is None else [relay.status.snapshot() for relay in pool.relays]

    def share(self) -> dict[str, Any]:
        """Return which outbox partitions this worker serves, as JSON can hold it."""
        pool = self._pool
        return {} if pool is None else pool.snapshot()

    def _serve_generation(self) -> None:
        with clients.for_relay(self._settings.mongodb_uri) as client:
            partitioning = self._current(client[self._settings.mongodb_database])
        pool = self._pool = Pool(
            self._settings,
            self._routing,
            partitions=partitioning.names,
            pins=self._pinned(partitioning),
            subscriptions=self._subscriptions,
            is_current=lambda database: self._current(database) == partitioning,
        )
        if self._stopping.is_set():
            return  # stop() may have come before there was a pool
        for relay in pool.relays:
            self._host.comes(relay)
        try:
            pool.run()
        finally:
            pool.stop()
        if not self._stopping.is_set():
            logger.info("The outbox is divided anew; what it is divided into now is served")
            for relay in pool.relays:
                self._host.goes(relay)

    def _current(self, database: Database[Any]) -> Partitioning:
        return served_now(database, self._settings)

    def _pinned(self, partitioning: Partitioning) -> frozenset[Any] | None:
        if self._pins is None:
            return None
        return frozenset(
            name for number, name in enumerate(partitioning.names) if number in self._pins
        )
