"""Leftovers: what the relays and consumers of a closed generation still have to do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from postroom import wire
from postroom.access import pulsar as pulsar_access
from postroom.operations.provisioning import Provisioning
from postroom.store.checkpoints import Checkpoints
from postroom.store.outbox_rows import OutboxRows
from postroom.store.partitioning_record import read, run
from postroom.store.quarantine import Quarantine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pymongo.database import Database

    from postroom.operations.wiring import Wiring
    from postroom.partitioning import Partitioning
    from postroom.store.checkpoints import Checkpoint
    from postroom.store.partitioning_record import Record
    from postroom.store.values import OutboxPartition
    from postroom.topics import Topic

__all__ = ["Leftovers"]

LOOK_SECONDS = 0.5
LEAVING_SECONDS = 10.0


class Leftovers:
    """What is left of the outbox partitions that a change closes; used by the change's thread.

    `asks` hears what the admin interface does not tell, `told` what it does not do, and `waits`
    what is waited for here.
    """

    def __init__(
        self,
        database: Database[Any],
        wiring: Wiring,
        *,
        told: Callable[[str], None],
        asks: Callable[[str], None],
        waits: Callable[[str], None],
    ) -> None:
        self._database = database
        self._wiring = wiring
        self._told = told
        self._asks = asks
        self._waits = waits
        self._admin = Provisioning(pulsar_access.of(wiring.settings))

    def unrelayed(self, record: Record) -> str:
        """Say what is not relayed yet of a generation that is closed; nothing where all is."""
        for name in record.partitioning.names:
            what = self._missing(record, name)
            if what:
                return what
        return ""

    def topics(self, partitioning: Partitioning) -> Sequence[Topic]:
        """Return the topics that a generation was relayed to, or topic partitions of theirs."""
        return sorted({topic for each in self._checkpoints(partitioning) for topic in each.lanes})

    def unconsumed(self, topics: Sequence[Topic]) -> str:
        """Say who has not read these topics to their end; nothing where all have, or say so."""
        for topic in topics:
            waiting = self._admin.backlogs(topic)
            if waiting is None:
                self._asks(
                    f"Pulsar's admin interface does not tell how far {topic} and the other topics "
                    "are consumed. Have all subscriptions there read all that waits"
                )
                return ""
            for subscription in self._wiring.consume:
                if left := waiting.get(subscription):
                    return f"subscription {subscription}, for which {left} messages wait on {topic}"
        return ""

    def forget(self, *, seconds: float = LEAVING_SECONDS) -> None:
        """Take the own subscriptions of the last generation's relays away, once these have left.

        They would keep all that is sent there; and a relay that has not left, which is waited for
        so long, has its connected.
        """
        record = run(self._database, read(self._wiring.settings.partition))
        deadline = time.monotonic() + seconds
        for each in self._checkpoints(record.closed[-1]) if record and record.closed else ():
            while self._has_relay(each.partition) and time.monotonic() < deadline:
                self._waits("the old relays to end")
                time.sleep(LOOK_SECONDS)
            subscription = wire.RELAY + each.partition
            for topic in each.lanes:
                if not self._admin.unsubscribe(topic, subscription):
                    self._told(f"pulsar-admin topics unsubscribe {topic} -f -s {subscription}")

    def _missing(self, record: Record, name: OutboxPartition) -> str:
        found = self._checkpoint(name)
        by = f"with POSTROOM_PARTITIONS={record.partitioning.count}"
        if found is None or found.token is None or found.owner is None:
            if not OutboxRows(self._database, partition=name).count(limit=1):
                return ""
            return f"a relay of outbox partition {name}, which has rows ({by})"
        awaited = Quarantine(self._database, partition=name).awaited_topics()
        if awaited:
            return f"rows of outbox partition {name} that are set aside for {awaited[0]}"
        if found.paused_by is not None:
            return f"outbox partition {name}, which is paused, until `outbox resume`"
        at, closed_at = found.cluster_time, record.closed_at
        if found.scan is not None or at is None or closed_at is None or at <= closed_at:
            return f"the relay of outbox partition {name} ({by}; the last was {found.owner})"
        return ""

    def _checkpoints(self, partitioning: Partitioning) -> list[Checkpoint]:
        return [each for each in map(self._checkpoint, partitioning.names) if each]

    def _checkpoint(self, name: OutboxPartition) -> Checkpoint | None:
        return Checkpoints(self._database).of(name)

    def _has_relay(self, name: OutboxPartition) -> bool:
        found = self._checkpoint(name)
        return found is not None and found.claim is not None and found.claim.mutex is not None
