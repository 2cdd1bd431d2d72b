"""The relay: stands by for the mutex, relays a term, and begins again whatever happens."""

from __future__ import annotations

import functools
import logging
import socket
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from postroom import broker, errors
from postroom.access import pulsar as pulsar_access
from postroom.observation import Observer
from postroom.pulsar_admin import PulsarAdmin
from postroom.relay import facts
from postroom.relay.candidate import Candidate, mutex_topic
from postroom.relay.inspection import Inspection
from postroom.relay.interlude import Interlude
from postroom.relay.mutex import PulsarMutex
from postroom.relay.occupant import Occupants
from postroom.relay.office import Office, Services
from postroom.relay.rivals import Rivals
from postroom.relay.stand import Alone
from postroom.relay.standing import Standing
from postroom.relay.state import State
from postroom.relay.status import Status
from postroom.sentences import Sentences
from postroom.store import clients
from postroom.store.checkpoints import Checkpoints, CheckpointStore
from postroom.store.values import OutboxPartition
from postroom.supervision import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymongo.database import Database

    from postroom.relay.stand import Ground, Stand
    from postroom.routing import Routing
    from postroom.settings import Settings

__all__ = ["Relay"]

logger = logging.getLogger(__name__)


class Relay:
    """Relays one outbox partition whenever it holds the mutex. One thread, run().

    Waiting -> standby -> opening -> relaying -> stopping. It stands by once it was told that
    another one has the mutex, not before the services let it in. Any error ends a term: everything
    that it opened is closed, the mutex with it, and after a wait the relay asks again. What no wait
    can mend (a broker that cannot do what POSTROOM_DELIVERY demands) ends run() with
    ConfigurationError.
    """

    def __init__(
        self,
        settings: Settings,
        routing: Routing,
        *,
        partition: str | None = None,
        subscriptions: Mapping[str, Any] | None = None,
        candidate: Candidate | None = None,
        stand: Stand | None = None,
    ) -> None:
        self._settings = settings
        self._candidate = candidate or _candidate(settings, partition)
        outbox_partition = self._candidate.partition
        self._stand = stand or Alone(
            settings,
            Inspection(settings, routing, subscriptions=subscriptions or {}),
            partition=outbox_partition,
        )
        self._stopping = threading.Event()
        self._rivals = Rivals(self._candidate, stopping=self._stopping)
        self.status = Status(partition=outbox_partition, owner=self._candidate.owner)
        self.observer = Observer(self.status.hear)
        self._standing = Standing(self.observer, partition=outbox_partition)
        self._interlude = Interlude(
            partition=outbox_partition, standing=self._standing, stopping=self._stopping
        )
        self._office = Office(
            settings,
            routing,
            candidate=self._candidate,
            observer=self.observer,
            standing=self._standing,
            stopping=self._stopping,
            paused=self._interlude.is_on,
        )

    def run(self) -> None:
        """Relay until stop() is called.

        Raises:
            ConfigurationError: the relay cannot work with this broker as it is set up.

        """
        partition = self._candidate.partition
        supervisor = Supervisor(
            self._stand_and_tell,
            stopping=self._stopping,
            sentence=_sentences(self._settings).of,
            waiting=functools.partial(self._standing.enter, State.WAITING),
            about=f"Outbox partition {partition!r}" if self._settings.partitions > 1 else "",
            extra={"action": "term_ended", "partition": partition},
        )
        try:
            supervisor.supervise()
        except errors.ConfigurationError:
            self._standing.enter(State.STOPPED, "configuration")
            raise
        self._standing.enter(State.STOPPED)

    def stop(self) -> None:
        """Ask the relay to finish what is in flight and end.

        Safe from any thread; not within a signal handler, since it takes a lock.
        """
        self._stopping.set()
        self._office.stop()

    @property
    def is_leaving(self) -> bool:
        """Whether it is giving its mutex back already; safe from any thread."""
        return self._interlude.is_leaving

    def give_back(self) -> None:
        """Have the term drain, checkpoint and end, and the mutex given back; it stands by again.

        Safe from any thread, like stop().
        """
        self._interlude.leave()
        self._office.stop()

    # --- one candidacy ------------------------------------------------------------------------

    def _stand_and_tell(self) -> None:
        try:
            self._stand_for_office()
        except Exception as error:
            if isinstance(error, errors.Superseded):
                self._rivals.deposed()
            self.observer.tell(
                facts.TermFailed(
                    partition=self._candidate.partition,
                    reason=_sentences(self._settings).of(error),
                    error=type(error).__name__,
                    transient=errors.is_transient(error),
                )
            )
            raise

    def _stand_for_office(self) -> None:
        self._interlude.begin()
        with self._stand.candidacy(self._stopping, waiting=self._wait) as ground:
            if ground is None:
                return
            checkpoints, mutex = self._checkpoints(ground.database), self._mutex(ground)
            try:
                waiting = self._wait
                if self._stand.acquire(ground, mutex, self._stopping, waiting=waiting) and (
                    self._is_without_rival(checkpoints, mutex)
                ):
                    with self._stand.office(ground) as means:
                        services = Services(
                            database=ground.database,
                            reading=means.reading,
                            vigil=means.vigil,
                            client=means.client,
                            abilities=ground.abilities,
                            checkpoints=checkpoints,
                        )
                        self._hold_office(services, mutex, ground)
                        mutex.release()
            finally:
                mutex.release()

    def _mutex(self, ground: Ground) -> PulsarMutex:
        settings, candidate = self._settings, self._candidate
        properties = {
            "partition": candidate.partition,
            "database": settings.mongodb_database,
            "mongodb": clients.members(ground.database.client),
            "host": socket.gethostname(),
        }
        occupants = Occupants(
            candidate,
            properties=properties,
            admin=PulsarAdmin(pulsar_access.of(settings)),
            checkpoints=Checkpoints(ground.database),
        )
        return PulsarMutex(
            ground.client,
            candidate,
            properties=properties,
            occupants=occupants,
            retry=timedelta(seconds=settings.mutex_retry_seconds),
        )

    def _checkpoints(self, database: Database[Any]) -> CheckpointStore:
        return CheckpointStore(
            database,
            partition=self._candidate.partition,
            owner=self._candidate.owner,
            mutex=self._candidate.meeting_place,
        )

    def _wait(self, state: State, reason: str) -> None:
        # Nobody is told that it stands by before it was let in: where the services do not let it
        # in it could stand in for nobody, and a rollout that waits until it stands by would go on
        # and end those that work.
        if state is State.STANDBY:
            self._rivals.refused()
        self._standing.enter(state, reason)

    def _is_without_rival(self, checkpoints: CheckpointStore, mutex: PulsarMutex) -> bool:
        def waiting(reason: str) -> None:
            mutex.check()
            self._standing.enter(State.STANDBY, reason)

        return self._rivals.await_silence(checkpoints, waiting=waiting)

    def _hold_office(self, services: Services, mutex: PulsarMutex, ground: Ground) -> None:
        def on_idle() -> None:
            mutex.check()
            self._stand.look(ground)

        self._standing.enter(State.OPENING)
        logger.info(
            "Holding the mutex as %s; opening a term of outbox partition %r",
            self._candidate.owner,
            self._candidate.partition,
            extra={"action": "mutex_taken", "owner": self._candidate.owner},
        )
        with self._interlude.watched(services.database, wake=self._office.stop):
            while self._interlude.sit_out(on_idle):
                self._standing.enter(State.OPENING)
                self._stand.inspection.before_term(services.client)
                self._office.hold(services, on_idle=on_idle)


def _candidate(settings: Settings, partition: str | None) -> Candidate:
    outbox_partition = OutboxPartition(partition or settings.partition)
    return Candidate(
        partition=outbox_partition,
        mutex_topic=mutex_topic(settings.mutex_topic, outbox_partition),
        brokers=", ".join(sorted(broker.masked(settings.pulsar_url).split(", "))),
    )


def _sentences(settings: Settings) -> Sentences:
    return Sentences(
        mongodb_uri=settings.mongodb_uri,
        pulsar_url=settings.pulsar_url,
        next_step="a new term begins",
    )
