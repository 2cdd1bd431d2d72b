"""Dividing: how an outbox is divided, and how its operator has it divided anew."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

from postroom import errors, wire
from postroom.access import pulsar as pulsar_access
from postroom.operations import actions
from postroom.operations.provisioning import Provisioning
from postroom.partitioning import MOST_PARTITIONS, Partitioning
from postroom.relay.reading.stream import open_stream
from postroom.relay.watching import backlog
from postroom.store import generations
from postroom.store.beginnings import begin_at
from postroom.store.checkpoints import Checkpoints
from postroom.store.clients import operation_time
from postroom.store.outbox_rows import OutboxRows
from postroom.store.partitioning_record import Record, read, run
from postroom.store.quarantine import Quarantine
from postroom.topics import base_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pymongo.database import Database

    from postroom.operations.actions import Actor
    from postroom.operations.wiring import Wiring
    from postroom.relay.watching.backlog import Backlog
    from postroom.store.checkpoints import Checkpoint
    from postroom.store.values import OutboxPartition
    from postroom.topics import Topic

__all__ = ["Change", "Part", "divided", "parts"]

LOOK_SECONDS = 0.5
LEAVING_SECONDS = 10.0
BACKLOG_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One outbox partition: the relay that has it, and how many rows wait, if that is known."""

    partition: OutboxPartition
    owner: str | None
    waiting: int | None


def divided(database: Database[Any], base: str) -> Record:
    """Return how an outbox is divided: into one, where nothing is recorded.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    return run(database, read(base)) or Record(partitioning=Partitioning(base=base))


def parts(database: Database[Any], partitioning: Partitioning) -> Iterator[Part]:
    """Yield the outbox partitions of a generation, each with its relay and what waits.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    checkpoints = {each.partition: each for each in Checkpoints(database).all()}
    seconds = BACKLOG_SECONDS / partitioning.count
    for name in partitioning.names:
        found = checkpoints.get(name)
        waits: Backlog | None
        if found is None or found.token is None:
            waits = backlog.in_collection(database, name, seconds=seconds)
        else:
            waits = backlog.behind(database, found, seconds=seconds)
        yield Part(
            partition=name,
            owner=None if found is None or found.claim is None else found.claim.owner,
            waiting=None if waits is None else waits.rows,
        )


class Change:
    """Has an outbox divided into another number of outbox partitions; run() once, in one thread.

    It closes the current generation, lets writers write into the next one, waits until the current
    one is relayed and consumed, and opens the next to relays. It may be interrupted anywhere and
    called again; until then what is written waits, and nothing is lost or out of order. `told`
    hears what is waited for whenever that changes, and when writers are to be started; `asks`
    whether the consumers have read what was relayed, where the admin interface does not tell.
    """

    def __init__(
        self,
        database: Database[Any],
        wiring: Wiring,
        count: int,
        *,
        told: Callable[[str], None],
        asks: Callable[[str], None],
    ) -> None:
        self._database = database
        self._wiring = wiring
        self._count = count
        self._told = told
        self._asks = asks
        self._said = ""
        self._admin = Provisioning(pulsar_access.of(wiring.settings))

    def run(self, *, actor: Actor) -> Partitioning | None:
        """Divide the outbox, and return what there is now; None where it was divided so already.

        Raises:
            OutboxError: the collection has a validator that refuses nothing.
            ConfigurationError: the count cannot be had, or a change to another one is to be
                finished first, since its next generation is written already.
            pymongo.errors.PyMongoError: MongoDB does not answer; call it again.

        """
        if not 1 <= self._count <= MOST_PARTITIONS:
            raise errors.ConfigurationError(
                f"An outbox is divided into 1 to {MOST_PARTITIONS} outbox partitions, not into "
                f"{self._count}; nothing was changed"
            )
        if self.is_done():
            return None
        record = divided(self._database, self._wiring.settings.partition)
        target = f"outbox {record.partitioning.base}"
        with actions.noted(self._database, actor, "partitions", target=target) as note:
            note.count, note.result = self._count, "under way"
            found = self._changed(record)
            note.result = f"{record.partitioning.count} -> {self._count}"
        return found

    def is_done(self) -> bool:
        """Say whether the outbox has that count, and no change is under way."""
        record = divided(self._database, self._wiring.settings.partition)
        return record.partitioning.count == self._count and record.next_count is None

    def _changed(self, record: Record) -> Partitioning:
        if record.next_count != self._count:
            record = run(self._database, generations.begin(record, self._count))
        record = self._written(self._closed(self._ours(record)))
        self._await(lambda: self._unrelayed(record))
        old = [each for each in map(self._checkpoint, record.partitioning.names) if each]
        topics = sorted({topic for each in old for topic in each.lanes})
        self._await(lambda: self._unconsumed(topics))
        self._grow({*self._wiring.routing.topics, *map(base_topic, topics)})
        found = run(self._database, generations.open_next(record)).partitioning
        self._forget(old)
        return found

    # --- step by step -------------------------------------------------------------------------

    def _ours(self, record: Record) -> Record:
        to = record.next_count
        if to != self._count:
            raise errors.ConfigurationError(
                f"The outbox {record.partitioning.base!r} "
                + (
                    "was changed by somebody else meanwhile: call this again"
                    if to is None
                    else f"is being changed to {to} outbox partitions, and that has to be finished "
                    f"first: call --to {to} again, and then --to {self._count}"
                )
            )
        return record

    def _closed(self, record: Record) -> Record:
        while record.closed_at is None:
            try:
                record = run(self._database, generations.close(record))
            except mongo.ExecutionTimeout:
                self._say("transactions that have written to the outbox and are open")
                # Others are turned away while MongoDB waits for these.
                time.sleep(LOOK_SECONDS)
        return record

    def _written(self, record: Record) -> Record:
        if not record.next_is_written:
            self._begin(record)
            record = self._ours(run(self._database, generations.let_write(record)))
        self._told(
            f"Start writers, and consumers whose handlers publish, with POSTROOM_PARTITIONS="
            f"{self._count} now: what they write waits until the old outbox partitions are relayed "
            "and consumed"
        )
        return record

    def _await(self, waited_for: Callable[[], str]) -> None:
        while what := waited_for():
            self._say(what)
            time.sleep(LOOK_SECONDS)

    def _unrelayed(self, record: Record) -> str:
        for name in record.partitioning.names:
            what = self._missing(record, name)
            if what:
                return what
        return ""

    def _missing(self, record: Record, name: OutboxPartition) -> str:
        found = self._checkpoint(name)
        if found is None or found.token is None or found.owner is None:
            if not OutboxRows(self._database, partition=name).count(limit=1):
                return ""
            return f"a relay of outbox partition {name}, which has rows"
        awaited = Quarantine(self._database, partition=name).awaited_topics()
        if awaited:
            return f"rows of outbox partition {name} that are set aside for {awaited[0]}"
        if found.paused_by is not None:
            return f"outbox partition {name}, which is paused, until `outbox resume`"
        at, closed_at = found.cluster_time, record.closed_at
        if found.scan is not None or at is None or closed_at is None or at <= closed_at:
            return f"the relay of outbox partition {name} (it has {found.owner or 'none'})"
        return ""

    def _checkpoint(self, name: OutboxPartition) -> Checkpoint | None:
        return Checkpoints(self._database).of(name)

    def _unconsumed(self, topics: list[Topic]) -> str:
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

    def _grow(self, topics: Collection[Topic]) -> None:
        """Have topics grow: those that are declared, and those that functions have named."""
        for topic in sorted(topics):
            if not self._admin.grow(topic, self._count):
                self._told(
                    f"If {topic} is there with less than {self._count} topic partitions: "
                    f"pulsar-admin topics update-partitioned-topic {topic} "
                    f"--partitions {self._count}"
                )

    def _begin(self, record: Record) -> None:
        """Have the new relays begin in the stream, in front of all that will be written.

        Rows that come before the first of them would else be read from the collection, by ids.
        """
        now, outbox = operation_time(self._database), self._database[wire.OUTBOX]
        for name in record.following.names:
            token = open_stream(outbox, partition=name, after=now)
            begin_at(self._database, name, token)

    def _forget(self, old: list[Checkpoint]) -> None:
        """Take the old relays' own subscriptions away, which would keep all that is sent there.

        Each once its relay has left, which has it connected until then.
        """
        deadline = time.monotonic() + LEAVING_SECONDS
        for each in old:
            while self._has_relay(each.partition) and time.monotonic() < deadline:
                self._say("the old relays to end")
                time.sleep(LOOK_SECONDS)
            subscription = wire.RELAY + each.partition
            for topic in each.lanes:
                if not self._admin.unsubscribe(topic, subscription):
                    self._told(f"pulsar-admin topics unsubscribe {topic} -f -s {subscription}")

    def _has_relay(self, name: OutboxPartition) -> bool:
        found = self._checkpoint(name)
        return found is not None and found.claim is not None and found.claim.mutex is not None

    def _say(self, what: str) -> None:
        if what != self._said:
            self._told(f"Waiting for {what}")
            self._said = what
