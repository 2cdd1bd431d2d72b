"""Dividing: how an outbox is divided, and how its operator has it divided anew."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

from postroom import errors, wire
from postroom.access import pulsar as pulsar_access
from postroom.operations import actions
from postroom.operations.leftovers import Leftovers
from postroom.operations.provisioning import Provisioning
from postroom.partitioning import MOST_PARTITIONS, Partitioning
from postroom.relay.reading.stream import open_stream
from postroom.relay.watching import backlog
from postroom.store import generations
from postroom.store.beginnings import begin_at
from postroom.store.checkpoints import Checkpoints
from postroom.store.clients import operation_time
from postroom.store.partitioning_record import Record, read, run
from postroom.topics import base_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pymongo.database import Database

    from postroom.operations.actions import Actor
    from postroom.operations.wiring import Wiring
    from postroom.relay.watching.backlog import Backlog
    from postroom.store.values import OutboxPartition
    from postroom.topics import Topic

__all__ = ["Change", "Part", "divided", "parts"]

LOOK_SECONDS = 0.5
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


class _Finished(Exception):
    """Somebody else has finished the change, to the same number."""


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
        self._said = ""
        self._admin = Provisioning(pulsar_access.of(wiring.settings))
        self._leftovers = Leftovers(database, wiring, told=told, asks=asks, waits=self._say)

    def run(self, *, actor: Actor) -> Partitioning | None:
        """Divide the outbox, and return what there is now; None where it was divided so already.

        Raises:
            OutboxError: the collection has a validator that refuses nothing.
            ConfigurationError: the count cannot be had, or a change to another one is to be
                finished first, since it has closed the current generation already.
            pymongo.errors.PyMongoError: MongoDB does not answer; call it again.

        """
        if not 1 <= self._count <= MOST_PARTITIONS:
            raise errors.ConfigurationError(
                f"An outbox is divided into 1 to {MOST_PARTITIONS} outbox partitions, not into "
                f"{self._count}; nothing was changed"
            )
        if self.is_done():
            # Whoever divided it may have been killed before.
            self._leftovers.forget(seconds=0)
            return None
        record = self._recorded()
        target = f"outbox {record.partitioning.base}"
        with actions.noted(self._database, actor, "partitions", target=target) as note:
            note.count, note.result = self._count, "under way"
            with contextlib.suppress(_Finished):
                self._change(record)
            self._leftovers.forget()
            note.result = f"{record.partitioning.count} -> {self._count}"
        return self._recorded().partitioning

    def is_done(self) -> bool:
        """Say whether the outbox has that count, and no change is under way."""
        record = self._recorded()
        return record.partitioning.count == self._count and record.next_count is None

    def _change(self, record: Record) -> None:
        if record.next_count != self._count:
            record = run(self._database, generations.begin(record, self._count))
        record = self._written(self._closed(self._ours(record)))
        self._await(lambda: self._leftovers.unrelayed(record))
        topics = self._leftovers.topics(record.partitioning)
        self._await(lambda: self._leftovers.unconsumed(topics))
        self._grow({*self._wiring.routing.topics, *map(base_topic, topics)})
        run(self._database, generations.open_next(record))

    # --- step by step -------------------------------------------------------------------------

    def _ours(self, record: Record) -> Record:
        """Return a record of this change, which somebody else may have gone on with, or finished.

        Raises:
            _Finished: it has that count by now.
            ConfigurationError: it is being changed, or was changed, to another one.

        """
        to, base = record.next_count, record.partitioning.base
        if to == self._count:
            return record
        if to is not None:
            raise errors.ConfigurationError(
                f"The outbox {base!r} is being changed to {to} outbox partitions, and that has to "
                f"be finished first: call --to {to} again, and then --to {self._count}"
            )
        if record.partitioning.count == self._count:
            raise _Finished
        raise errors.ConfigurationError(
            f"The outbox {base!r} was changed to {record.partitioning.count} outbox partitions by "
            "somebody else meanwhile: call this again"
        )

    def _closed(self, record: Record) -> Record:
        while record.closed_at is None:
            try:
                record = self._ours(run(self._database, generations.close(record)))
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
            # Behind one that somebody else has finished, what is relayed now would be waited for.
            self._ours(self._recorded())

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

    def _recorded(self) -> Record:
        return divided(self._database, self._wiring.settings.partition)

    def _say(self, what: str) -> None:
        if what != self._said:
            self._told(f"Waiting for {what}")
            self._said = what
