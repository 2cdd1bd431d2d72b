"""The office: what a relay's terms are made of, by its settings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from postroom import errors, wire
from postroom.access import pulsar as pulsar_access
from postroom.pulsar_admin import PulsarAdmin
from postroom.relay import facts
from postroom.relay.mover import Mover
from postroom.relay.outfit import Mandate, TermOptions
from postroom.relay.reading.origin import Origin
from postroom.relay.saving.heartbeat import Heartbeat
from postroom.relay.saving.retention import Retention
from postroom.relay.saving.saver import CheckpointPace
from postroom.relay.sending.audience import Audience
from postroom.relay.sending.experience import Experience
from postroom.relay.sending.lane_options import LaneOptions
from postroom.relay.term import Term
from postroom.relay.watching.unattended import Bystander
from postroom.store import quarantine_index
from postroom.store.outbox_rows import OutboxRows
from postroom.store.quarantine import Quarantine

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    import pulsar
    from pymongo.database import Database

    from postroom.abilities import Abilities
    from postroom.observation import Observer
    from postroom.relay.candidate import Candidate
    from postroom.relay.standing import Standing
    from postroom.relay.watching.vigil import Vigil
    from postroom.routing import Routing
    from postroom.settings import Settings
    from postroom.store.checkpoints import CheckpointStore

__all__ = ["OPERATION_TIMEOUT", "Office", "Services"]

# Longer than the five seconds a broker takes to see that a frozen holder of the mutex is gone.
OPERATION_TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What one candidacy works with.

    `reading` is the database by a client whose calls have no end but their own, and over which the
    `vigil` watches; those of `database` end in bounded time.
    """

    database: Database[Any]
    reading: Database[Any]
    vigil: Vigil
    client: pulsar.Client
    abilities: Abilities
    checkpoints: CheckpointStore


class Office:
    """Makes the terms of one relay, one after the other, and remembers what they found out.

    hold() in the relay's thread; stop() from any.
    """

    def __init__(
        self,
        settings: Settings,
        routing: Routing,
        *,
        candidate: Candidate,
        observer: Observer,
        standing: Standing,
        stopping: threading.Event,
        paused: threading.Event,
    ) -> None:
        self._settings = settings
        self._routing = routing
        self._candidate = candidate
        self._observer = observer
        self._standing = standing
        self._stopping = stopping
        self._paused = paused
        admin = PulsarAdmin(pulsar_access.of(settings))
        self._experience = Experience(
            largest=settings.max_message_bytes,
            admin=admin,
            audience=Audience(routing.read_by_failover, always=settings.batch_keyed, admin=admin),
        )
        self._bystander = Bystander()
        self._term: Term | None = None

    def hold(self, services: Services, *, on_idle: Callable[[], None]) -> None:
        """Run one term with retention beside it, until it ends; `on_idle` is its own.

        Raises:
            TermEnded: and any other error that ends a term.

        """
        partition = self._candidate.partition
        OutboxRows(services.database, partition=partition).ensure_collection()
        quarantine = Quarantine(services.database, partition=partition)
        quarantine_index.prepare_if_allowed(services.database)
        mover = self._mover(services.database)
        retention = self._retention(services.database, quarantine)
        self._term = self._new_term(services, quarantine)
        heartbeat = Heartbeat(services.checkpoints)
        heartbeat.start()
        try:
            if retention is not None:
                retention.start()
            self._bystander.start(services.database)
            mover.start()
            self._term.run(on_idle=lambda: _on_idle(services, on_idle))
            heartbeat.stop()
            services.checkpoints.leave()
        except errors.OtherPartitioning:
            # All was relayed before, and whoever divides the outbox waits for this relay to leave.
            heartbeat.stop()
            services.checkpoints.leave()
            raise
        finally:
            heartbeat.stop()
            mover.stop()
            self._bystander.stop()
            if retention is not None:
                retention.stop()
            self._term = None

    def stop(self) -> None:
        """Have the term that is running look at once whether it may go on; safe from any thread."""
        term = self._term
        if term is not None:
            term.stop()

    def _new_term(self, services: Services, quarantine: Quarantine) -> Term:
        partition = self._candidate.partition
        checkpoints = services.checkpoints
        origin = Origin(
            services.database,
            reading=services.reading,
            checkpoints=checkpoints,
            quarantine=quarantine,
            partition=partition,
            margin=timedelta(hours=self._settings.history_margin_hours),
            kept=self._settings.retention,
        )
        mandate = Mandate(
            database=services.database,
            client=services.client,
            checkpoints=checkpoints,
            quarantine=quarantine,
            routing=self._routing,
            experience=self._experience,
            observer=self._observer,
            stopping=self._stopping,
            paused=self._paused,
        )
        options = self._options(services.abilities)
        return Term(mandate, origin=origin, options=options, standing=self._standing)

    def _options(self, abilities: Abilities) -> TermOptions:
        settings = self._settings
        return TermOptions(
            partition=self._candidate.partition,
            pace=CheckpointPace(
                busy_seconds=settings.checkpoint_seconds,
                idle_seconds=settings.idle_checkpoint_seconds,
            ),
            # The rest is for the last checkpoint and for giving the mutex back.
            drain_timeout=timedelta(seconds=settings.shutdown_seconds * 0.75),
            block_on_poison=settings.on_poison == "block",
            poison_limit=settings.poison_limit,
            mark_sent=settings.mark_sent,
            lanes=self._lane_options(abilities),
        )

    def _lane_options(self, abilities: Abilities) -> LaneOptions:
        settings = self._settings
        return LaneOptions(
            producer_name=wire.RELAY + self._candidate.partition,
            # Two services share no mutex topic, so its name tells them apart.
            shared_producer_name=wire.RELAY + self._candidate.mutex,
            fenced=abilities.fencing,
            send_timeout=timedelta(seconds=settings.send_timeout_seconds),
            read_timeout=OPERATION_TIMEOUT,
            kept_for=2 * timedelta(hours=settings.history_margin_hours),
        )

    def _retention(self, database: Database[Any], quarantine: Quarantine) -> Retention | None:
        age = self._settings.retention
        if age is None:
            return None
        return Retention(
            database,
            quarantine,
            partition=self._candidate.partition,
            age=age,
            margin=timedelta(hours=self._settings.history_margin_hours),
            pruned=self._count_pruned,
        )

    def _mover(self, database: Database[Any]) -> Mover:
        return Mover(
            database,
            partition=self._candidate.partition,
            margin=timedelta(hours=self._settings.history_margin_hours),
            tell=self._observer.tell,
        )

    def _count_pruned(self, rows: int) -> None:
        self._observer.tell(facts.RowsPruned(partition=self._candidate.partition, rows=rows))


def _on_idle(services: Services, and_then: Callable[[], None]) -> None:
    services.vigil.look(services.database.client)
    and_then()
