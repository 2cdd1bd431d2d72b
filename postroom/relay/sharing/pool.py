"""The pool: the relays of one worker, which serve its share of the outbox partitions.

Locks keep two workers from one outbox partition, the checkpoints' rows say who has what, and each
worker's steward decides what it asks for and gives. There is no leader, no lease and no clock.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from postroom import broker
from postroom.relay.candidate import SUBSCRIPTION, Candidate, mutex_topic, new_owner
from postroom.relay.inspection import Inspection
from postroom.relay.relay import Relay
from postroom.relay.sharing.grounds import Grounds
from postroom.relay.sharing.seat import HeldLocks, Seat
from postroom.relay.sharing.steward import Steward
from postroom.relay.sharing.unserved import Unserved
from postroom.sentences import Sentences
from postroom.store import checkpoint_index
from postroom.store.holdings import Holdings, read
from postroom.store.values import OutboxPartition
from postroom.supervision import Backoff, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pymongo.database import Database

    from postroom.relay.sharing.plan import Plan
    from postroom.relay.stand import Ground
    from postroom.routing import Routing
    from postroom.settings import Settings
    from postroom.store.holdings import Holding

__all__ = ["Pool"]

logger = logging.getLogger(__name__)

CURRENT_SECONDS = 2.0


class Pool:
    """Serves a share of some outbox partitions: a relay for each, of which those relay that may.

    `relays` has one for each outbox partition, to be run in a thread of its own; run() in another
    decides which of them ask for their locks. The locks are the Exclusive subscriptions `mutex-<i>`
    of one mutex topic. With `pins` it serves these and leaves all others alone.
    """

    def __init__(
        self,
        settings: Settings,
        routing: Routing,
        *,
        partitions: Sequence[OutboxPartition],
        pins: frozenset[OutboxPartition] | None = None,
        subscriptions: Mapping[str, Any] | None = None,
        is_current: Callable[[Database[Any]], bool] = lambda _: True,
    ) -> None:
        self.name = new_owner()
        self._settings = settings
        self._is_current = is_current
        self._partitions = tuple(partitions)
        most = settings.relay_share or len(partitions)
        self._held = HeldLocks(most=most)
        self._answers: queue.SimpleQueue[tuple[OutboxPartition, bool]] = queue.SimpleQueue()
        inspection = Inspection(settings, routing, subscriptions=subscriptions or {})
        self._grounds = Grounds(settings, inspection)
        self._steward = Steward(self.name, most=most, pins=pins)
        self._stopping = threading.Event()
        self._seats: dict[OutboxPartition, tuple[Seat, Relay]] = {}
        for index, partition in enumerate(partitions):
            seat = self._seat(partition, inspection)
            relay = Relay(
                settings,
                routing.toward(index if routing.partitions > 1 else None),
                candidate=self._candidate(partition),
                stand=seat,
            )
            self._seats[partition] = seat, relay

    @property
    def relays(self) -> list[Relay]:
        """One for each outbox partition, in order."""
        return [relay for _, relay in self._seats.values()]

    def snapshot(self) -> dict[str, Any]:
        """Return which outbox partitions this worker serves, as JSON can hold it.

        And which others it would take over, were they free: it may be pinned, or have no room.
        """
        held = self._held.now()
        return {
            "worker": self.name,
            "of": len(self._partitions),
            "serves": [each for each in self._partitions if each in held],
            "would_take": self._steward.would_take(self._partitions, held=held),
        }

    def run(self) -> None:
        """Have the relays ask and give, round by round, until stop() is called.

        It also ends once these outbox partitions are not the current ones any more.

        Raises:
            ConfigurationError: relays cannot work with the services as they are set up, or the
                outbox is divided otherwise.

        """
        supervisor = Supervisor(
            self._serve,
            stopping=self._stopping,
            sentence=self._sentence,
            waiting=self._grounds.admittance.unseen,
            backoff=Backoff(longest_seconds=2.0),
            extra={"action": "sharing"},
        )
        try:
            supervisor.supervise()
        finally:
            self._grounds.close()

    def stop(self) -> None:
        """Have all relays finish what is in flight and give their locks back; from any thread."""
        self._stopping.set()
        for relay in self.relays:
            relay.stop()

    # --- what it is made of -------------------------------------------------------------------

    def _seat(self, partition: OutboxPartition, inspection: Inspection) -> Seat:
        return Seat(
            self._settings,
            partition,
            inspection=inspection,
            grounds=self._grounds,
            held=self._held,
            holdings=self._holdings,
            answer=lambda partition, is_ours: self._answers.put((partition, is_ours)),
        )

    def _candidate(self, partition: OutboxPartition) -> Candidate:
        base = OutboxPartition(self._settings.partition)
        return Candidate(
            partition=partition,
            mutex_topic=mutex_topic(self._settings.mutex_topic, base),
            brokers=", ".join(sorted(broker.masked(self._settings.pulsar_url).split(", "))),
            subscription=SUBSCRIPTION + partition.removeprefix(base),
            owner=self.name,
        )

    def _holdings(self, ground: Ground) -> Holdings:
        return Holdings(ground.database, worker=self.name, pinned=self._steward.is_pinned)

    # --- rounds -------------------------------------------------------------------------------

    def _serve(self) -> None:
        with self._grounds.lend() as ground:
            checkpoint_index.prepare(ground.database)
            unserved = Unserved(self._partitions)
            looked = time.monotonic()
            while not self._stopping.is_set() and not self._grounds.is_spent(ground):
                self._round(ground.database, self._holdings(ground), unserved)
                self._grounds.admittance.seen()
                self._stopping.wait(self._settings.mutex_retry_seconds)
                if time.monotonic() - looked > CURRENT_SECONDS:
                    looked = time.monotonic()
                    if not self._is_current(ground.database):
                        self.stop()

    def _round(self, database: Database[Any], holdings: Holdings, unserved: Unserved) -> None:
        rows = read(database, self._partitions)
        self._hear_answers()
        asked = {
            each: at for each, (seat, _) in self._seats.items() if (at := seat.asked_at) is not None
        }
        held = self._held.now()
        found = self._steward.decide(rows, held=held, asked=asked, now=time.monotonic())
        unserved.look(rows, held=held)
        self._obey(found, {each.partition: each for each in rows}, holdings)

    def _hear_answers(self) -> None:
        while not self._answers.empty():
            partition, is_ours = self._answers.get_nowait()
            self._steward.answered(partition, is_ours=is_ours)

    def _obey(
        self, found: Plan, rows: Mapping[OutboxPartition, Holding], holdings: Holdings
    ) -> None:
        for partition in found.ask:
            self._seats[partition][0].call()
        for partition in found.give:
            self._give(partition, to=rows[partition].wanted_by)
        for partition in found.decline:
            holdings.decline(partition, wanted_by=rows[partition].wanted_by or "")
        for partition in found.want:
            holdings.want(partition, of=rows[partition].holder or "")

    def _give(self, partition: OutboxPartition, *, to: str | None) -> None:
        relay = self._seats[partition][1]
        if not relay.is_leaving:
            logger.info(
                "Outbox partition %r is given to the relay worker %s, which has fewer",
                partition,
                to,
                extra={"action": "hand_over", "partition": partition},
            )
        # Again, where it is: the term may have been one that was not yet open.
        relay.give_back()

    def _sentence(self, error: BaseException) -> str:
        return Sentences(
            mongodb_uri=self._settings.mongodb_uri,
            pulsar_url=self._settings.pulsar_url,
            next_step="what is served goes on, and who serves what is looked at again",
        ).of(error)
