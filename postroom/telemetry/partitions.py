"""Partitions: what the database alone tells of every outbox partition, as metrics."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pymongo
from prometheus_client.registry import Collector
from pymongo import errors as mongo

from postroom import tracing
from postroom.relay.watching.view import NOBODY, views
from postroom.store import clients
from postroom.store.oplog import first_time
from postroom.store.scheduled_search import Overview, ScheduledSearch
from postroom.telemetry.catalogue import DATABASE, family

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.core import GaugeMetricFamily
    from pymongo import MongoClient
    from pymongo.database import Database

    from postroom.relay.watching.view import PartitionView
    from postroom.settings import Settings

__all__ = ["Partitions"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
# Nobody asks any more; a minute is the longest interval that Prometheus is set to.
REST_AFTER_SECONDS = 150.0
FIRST_LOOK_SECONDS = 4.0
OPLOG_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What was seen, and when by the monotonic clock."""

    partitions: Sequence[PartitionView]
    oplog_seconds: float | None
    scheduled: Sequence[Overview]
    members_away: int
    at: float


class Partitions(Collector):
    """Looks every five seconds for as long as somebody asks, in a thread of its own.

    A look costs MongoDB up to a second, and whoever asks must not wait for that: Flower, for one,
    does nothing else meanwhile. So what is told is a few seconds old, and ages have grown by that.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._asked_at = 0.0
        self._is_looking = False
        self._looks_once = False
        self._looked = threading.Event()
        self._seen: _Seen | None = None

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name what collect() may give."""
        return (family(DATABASE, name) for name in DATABASE)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Tell what was seen last; the first one to ask waits for the first look."""
        if not self._looks_once:
            self._ask()
            self._looked.wait(FIRST_LOOK_SECONDS)
        seen = self._seen
        readable = family(DATABASE, "postroom_database_readable")
        readable.add_metric([], float(seen is not None))
        yield readable
        if seen is not None:
            yield from _families(seen)

    def look_once(self) -> None:
        """Look now, in this thread, and tell that from now on.

        Raises:
            pymongo.errors.PyMongoError: MongoDB does not answer.

        """
        self._looks_once = True
        with clients.for_command_line(self._settings.mongodb_uri) as client:
            self._look(client)

    def _ask(self) -> None:
        with self._lock:
            self._asked_at = time.monotonic()
            if self._is_looking:
                return
            self._is_looking = True
            self._looked.clear()
        threading.Thread(
            target=tracing.silently(self._run), name="postroom-partitions", daemon=True
        ).start()

    def _run(self) -> None:
        try:
            with clients.for_command_line(self._settings.mongodb_uri) as client:
                while self._is_asked():
                    self._look_or_not(client)
                    self._looked.set()
                    threading.Event().wait(LOOK_SECONDS)
        finally:
            with self._lock:
                self._is_looking = False
            self._looked.set()

    def _is_asked(self) -> bool:
        with self._lock:
            return time.monotonic() - self._asked_at < REST_AFTER_SECONDS

    def _look_or_not(self, client: MongoClient[Any]) -> None:
        try:
            self._look(client)
        except Exception as error:  # noqa: BLE001 - what can be told is that it cannot be told
            self._seen = None
            logger.debug("The outbox partitions could not be looked at (%s)", type(error).__name__)

    def _look(self, client: MongoClient[Any]) -> None:
        database = client[self._settings.mongodb_database]
        self._seen = _Seen(
            partitions=views(database).partitions,
            oplog_seconds=_oplog(client),
            scheduled=_scheduled(database),
            members_away=len(clients.members_away(client)),
            at=time.monotonic(),
        )


def _families(seen: _Seen) -> Iterator[GaugeMetricFamily]:
    older, now = time.monotonic() - seen.at, datetime.now(UTC)
    metrics = {name: family(DATABASE, name) for name in DATABASE}

    def tell(name: str, value: float | None, *labels: str) -> None:
        if value is not None:
            metrics[f"postroom_relay_{name}"].add_metric(labels, float(value))

    for view in seen.partitions:
        if view.closed:
            continue  # its checkpoint ages for ever, and is waited for by nobody
        name, lag = view.partition, view.lag_seconds
        tell("backlog_events", view.waiting, name)
        tell("backlog_partial", view.waiting_at_least, name)
        tell("oldest_unsent_seconds", lag + older if lag else lag, name)
        tell("quarantined_rows", view.quarantined_now, name)
        if not view.following:
            tell("ever_relayed", view.ever_relayed, name)
        if view.served_by is not None:
            tell("served", view.served_by != NOBODY, name)
        tell("paused", view.paused_by is not None, name)
        tell("scanning", view.scanning, name)
        if view.checkpointed_at is not None:
            age = (now - view.checkpointed_at).total_seconds()
            tell("checkpoint_age_seconds", max(0.0, age), name)
    tell("oplog_window_seconds", seen.oplog_seconds)
    metrics["postroom_database_members_away"].add_metric([], float(seen.members_away))
    for each in seen.scheduled:
        for name, value in (
            ("events", each.waiting),
            ("overdue_events", each.overdue),
            ("refused_events", each.refused),
            ("oldest_overdue_seconds", each.oldest_overdue_seconds),
        ):
            metrics[f"postroom_scheduled_{name}"].add_metric((each.outbox,), float(value))
    del metrics["postroom_database_readable"]
    yield from metrics.values()


def _scheduled(database: Database[Any]) -> Sequence[Overview]:
    """Return what is scheduled; nothing where the plan may not be read."""
    with contextlib.suppress(mongo.OperationFailure):
        return ScheduledSearch(database).overview()
    return ()


def _oplog(client: MongoClient[Any]) -> float | None:
    """Return how far back the oplog reaches, or None where it may not be read or there is none."""
    with contextlib.suppress(mongo.PyMongoError), pymongo.timeout(OPLOG_SECONDS):
        first = first_time(client)
        if first is not None:
            return max(0.0, time.time() - first.timestamp())
    return None
