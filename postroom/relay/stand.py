"""A stand: how a relay comes by its clients and its mutex, alone or as one of a pool."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pymongo import errors as mongo

from postroom import broker, errors
from postroom.access import pulsar as pulsar_access
from postroom.relay.office import OPERATION_TIMEOUT
from postroom.relay.watching.vigil import Vigil
from postroom.store import clients
from postroom.store.partitioning_record import run
from postroom.store.partitionings import to_relay

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    import pulsar
    from pymongo.database import Database

    from postroom.abilities import Abilities
    from postroom.partitioning import OutboxPartition, Partitioning
    from postroom.relay.inspection import Inspection
    from postroom.relay.mutex import PulsarMutex
    from postroom.relay.state import State
    from postroom.settings import Settings

__all__ = ["Alone", "Ground", "Means", "Stand", "served_now", "watched_database"]

UNDIVIDED_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a candidate needs: a database whose calls end in time, and Pulsar for its mutex."""

    database: Database[Any]
    client: pulsar.Client
    abilities: Abilities


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a term needs beside: a database whose calls have no end but their own, and Pulsar."""

    reading: Database[Any]
    vigil: Vigil
    client: pulsar.Client


class Stand(Protocol):
    """What a relay stands on; its methods are called by the relay's thread.

    `waiting` is called about once a second, or more often: in which state it waits, and why.
    """

    @property
    def inspection(self) -> Inspection:
        """What looks at the services."""

    def candidacy(
        self, stopping: threading.Event, *, waiting: Callable[[State, str], None]
    ) -> contextlib.AbstractContextManager[Ground | None]:
        """Lend the ground for the time of one candidacy; None where `stopping` was set first."""

    def acquire(
        self,
        ground: Ground,
        mutex: PulsarMutex,
        stopping: threading.Event,
        *,
        waiting: Callable[[State, str], None],
    ) -> bool:
        """Say whether the mutex was got."""

    def look(self, ground: Ground) -> None:
        """Look, about once a second while it relays, whether it may go on; errors end it."""

    def office(self, ground: Ground) -> contextlib.AbstractContextManager[Means]:
        """Lend what the terms need while the mutex is held.

        The mutex is given back within the block, unless an error leaves that.
        """


class Alone:
    """One relay with clients of its own, made anew for each candidacy; asks until it has the mutex.

    Any error closes them all.
    """

    def __init__(
        self, settings: Settings, inspection: Inspection, *, partition: OutboxPartition
    ) -> None:
        self._settings = settings
        self._partition = partition
        self._looked = 0.0
        self.inspection = inspection

    @contextlib.contextmanager
    def candidacy(
        self,
        stopping: threading.Event,  # noqa: ARG002 - the mutex is what is waited for
        *,
        waiting: Callable[[State, str], None],  # noqa: ARG002
    ) -> Iterator[Ground | None]:
        """Lend the ground.

        Raises:
            OtherPartitioning: the outbox has more than this one outbox partition.
            OtherGeneration: it has one again, by another name.
            ConfigurationError: the relay cannot work with the services as they are set up.
            ServiceUnavailable: one of them does not answer, or is not fit now.

        """
        access = pulsar_access.of(self._settings)
        with (
            clients.for_relay(self._settings.mongodb_uri) as mongodb,
            broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as client,
        ):
            ground = Ground(
                database=mongodb[self._settings.mongodb_database],
                client=client,
                abilities=self.inspection.before_standing(mongodb, client),
            )
            self._require_current(ground.database)
            yield ground

    def _require_current(self, database: Database[Any]) -> None:
        if self._partition != self._settings.partition:
            return  # one of another name, which nobody divides
        current = served_now(database, self._settings)
        if current.names != (self._partition,):
            raise errors.OtherGeneration(
                f"The outbox partition {self._partition!r} is closed: what is written now is in "
                f"{', '.join(current.names)}"
            )

    def acquire(
        self,
        ground: Ground,  # noqa: ARG002 - the mutex has what it needs of it
        mutex: PulsarMutex,
        stopping: threading.Event,
        *,
        waiting: Callable[[State, str], None],
    ) -> bool:
        """Ask until the mutex is held, and return True; False once `stopping` is set."""
        return mutex.acquire(stopping, waiting=waiting)

    def look(self, ground: Ground) -> None:
        """Look now and then whether the outbox was divided.

        Raises:
            OtherPartitioning: it was; this one's rows are relayed by then.

        """
        now = time.monotonic()
        if now - self._looked > UNDIVIDED_SECONDS:
            self._looked = now
            with contextlib.suppress(mongo.PyMongoError):
                self._require_current(ground.database)

    @contextlib.contextmanager
    def office(self, ground: Ground) -> Iterator[Means]:
        """Lend a client that reads, and the candidate's own client of Pulsar."""
        with watched_database(self._settings) as (database, vigil):
            yield Means(reading=database, vigil=vigil, client=ground.client)


def served_now(database: Database[Any], settings: Settings) -> Partitioning:
    """Return which outbox partitions are to be served now, by relays of these settings.

    Raises:
        OtherPartitioning: the outbox is divided otherwise.
        pymongo.errors.PyMongoError: it cannot be told.

    """
    return run(database, to_relay(settings.partition, settings.partitions))


@contextlib.contextmanager
def watched_database(settings: Settings) -> Iterator[tuple[Database[Any], Vigil]]:
    """Lend the database by a client of its own whose calls last, and what watches over them."""
    vigil = Vigil()
    with clients.for_change_stream(settings.mongodb_uri, vigil=vigil) as patient:
        yield patient[settings.mongodb_database], vigil
