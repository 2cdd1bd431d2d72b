"""Forgetting: all that postroom keeps in MongoDB of the events of one key is deleted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bson import Timestamp

from postroom import errors, event_classes
from postroom.events import id_text
from postroom.operations import actions, quarantined
from postroom.operations.filters import Filter
from postroom.store.checkpoints import Checkpoints
from postroom.store.clients import operation_time
from postroom.store.inbox_rows import identity
from postroom.store.key_rows import KeyRows, batches, matching
from postroom.store.outbox_rows import OutboxRows
from postroom.store.relayed import comes_past
from postroom.store.traces import Traces
from postroom.store.values import OutboxPartition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymongo.database import Database

    from postroom.operations.actions import Actor
    from postroom.operations.wiring import Wiring
    from postroom.store.checkpoints import Checkpoint

__all__ = ["Forgotten", "forget", "look"]

# A message that its handler has handled is acknowledged in a moment; one that is not comes again.
INBOX_AGE = timedelta(hours=1)

NOT_RELAYED = "not known to be relayed yet: a relay has to run, and has relayed them in a moment"
WAITING = "to be sent: in quarantine, waiting for a topic or put back a moment ago"
TOO_NEW = "handled within the last hour, or handled right now: the inbox still needs to know them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """How much was deleted, or would be: rows, and entries of inbox and quarantine.

    `left` is how many events were left, by the reason why; `beyond` says where else something may
    be, which no command of postroom reaches, and what removes it there.
    """

    rows: int = 0
    scheduled: int = 0
    quarantined: int = 0
    inbox: int = 0
    left: Counter[str] = field(default_factory=Counter)
    beyond: tuple[str, ...] = ()


def look(database: Database[Any], wiring: Wiring, key: str) -> Forgotten:
    """Return what forget() would delete now; changes nothing.

    Raises:
        ConfigurationError: nothing could have that key.
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    return _Forgetting(database, wiring, key).run(really=False)


def forget(database: Database[Any], wiring: Wiring, key: str, *, actor: Actor) -> Forgotten:
    """Delete the rows of a key's events, what is scheduled, and what inbox and quarantine have.

    An event that is still to be sent is left and counted, never lost; so is one whose handler may
    still need the inbox. What is scheduled is thereby cancelled, and what is in quarantine for
    people to decide on is thereby discarded. Run it again until nothing is left. The action log has
    the act without the key.

    Raises:
        ConfigurationError: nothing could have that key.
        pymongo.errors.PyMongoError: MongoDB does not answer; what was deleted stays deleted.

    """
    forgetting = _Forgetting(database, wiring, key)
    with actions.noted(database, actor, "forget", target="the events of one key") as note:
        done = forgetting.run(really=True)
        note.count = done.rows + done.scheduled + done.quarantined + done.inbox
        left = done.left.total()
        note.result = f"done, {left} events left for now" if left else "done"
    return done


class _Forgetting:
    def __init__(self, database: Database[Any], wiring: Wiring, key: str) -> None:
        if not key:
            raise errors.ConfigurationError("A key has at least one character")
        Filter(key=key)  # refuses what nothing could have
        self._database = database
        self._wiring = wiring
        fields: list[tuple[str | None, str]] = [*event_classes.key_fields()]
        if (by_field := quarantined.searchable(wiring.key_field)) is not None:
            fields.append((None, by_field))
        self._rows = KeyRows(database, matching(quarantined.forms_of(key), fields))
        self._pairs = Traces(database).handlers()
        self._found_at = Timestamp(0, 0)
        self._past: dict[OutboxPartition, bool] = {}
        self._left: Counter[str] = Counter()
        self._deleted: Counter[str] = Counter()

    def run(self, *, really: bool) -> Forgotten:
        """Delete, or count."""
        checkpoints = {each.partition: each for each in Checkpoints(self._database).all()}
        found_ids = self._rows.ids().items()
        self._found_at = operation_time(self._database)
        for partition, ids in found_ids:
            checkpoint = checkpoints.get(OutboxPartition(partition))
            for some in batches(ids):
                self._batch(OutboxPartition(partition), checkpoint, some, really=really)
        found = self._deleted
        return Forgotten(
            rows=found["rows"],
            scheduled=self._rows.delete_scheduled() if really else self._rows.scheduled(),
            quarantined=found["quarantined"],
            inbox=found["inbox"],
            left=self._left,
            beyond=_beyond(self._wiring, list(checkpoints.values())),
        )

    def _batch(
        self,
        partition: OutboxPartition,
        checkpoint: Checkpoint | None,
        ids: Sequence[Any],
        *,
        really: bool,
    ) -> None:
        rows = OutboxRows(self._database, partition=partition)
        relayed = [] if checkpoint is None else self._relayed(rows, checkpoint, ids)
        sendable = {id_text(row_id) for row_id in self._rows.unsent(relayed)}
        new = self._rows.handled(relayed, self._pairs).too_new(INBOX_AGE)
        doomed = [
            row_id
            for row_id in relayed
            if id_text(row_id) not in sendable and identity(id_text(row_id)) not in new
        ]
        self._left[NOT_RELAYED] += len(ids) - len(relayed)
        self._left[WAITING] += len(sendable)
        self._left[TOO_NEW] += len(relayed) - len(doomed) - len(sendable)
        for what, count in self._deleted_of(rows, checkpoint, doomed, really=really).items():
            self._deleted[what] += count

    def _relayed(
        self, rows: OutboxRows, checkpoint: Checkpoint, ids: Sequence[Any]
    ) -> Sequence[Any]:
        """Return those that were there when all was relayed, in the collection that this is about.

        Where MongoDB cannot tell any more what was there then, all once the relay has come past
        the time at which they were found.
        """
        reached, collection = checkpoint.cluster_time, checkpoint.collection
        if reached is None or checkpoint.scan is not None or collection is None:
            return []
        if collection != rows.collection():
            return []
        found = rows.there(ids, at=reached)
        if found is not None:
            return found
        partition = checkpoint.partition
        if partition not in self._past:
            self._past[partition] = comes_past(
                self._database, partition, self._found_at, collection=collection
            )
        return ids if self._past[partition] else []

    def _deleted_of(
        self,
        rows: OutboxRows,
        checkpoint: Checkpoint | None,
        doomed: Sequence[Any],
        *,
        really: bool,
    ) -> dict[str, int]:
        handled = self._rows.handled(doomed, self._pairs)
        if not really or checkpoint is None or checkpoint.collection is None:
            kept = self._rows.quarantined(doomed)
            return {"rows": len(doomed), "quarantined": kept, "inbox": len(handled.rows)}
        # The rows go last: without them nobody would find the others any more.
        return {
            "inbox": self._rows.delete_handled(handled),
            "quarantined": self._rows.delete_quarantined(doomed),
            "rows": rows.delete_from(checkpoint.collection, doomed) or 0,
        }


def _beyond(wiring: Wiring, checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    topics = sorted(
        {*wiring.routing.topics, *(topic for each in checkpoints for topic in each.lanes)}
    )
    letters = ", ".join(
        f"--topic {topic} --subscription {name}" for name, topic in wiring.subscribed()
    )
    subscriptions = letters or "the subscriptions"
    days = f"{wiring.settings.inbox_days:g} days (POSTROOM_INBOX_DAYS)"
    found = [
        f"Messages on {', '.join(topics)} stay until Pulsar's retention deletes them",
        "What consumers have not acknowledged yet is still handled",
        f"Dead letters stay until `dead-letters discard --key …` for each of {subscriptions}",
        f"Of what was pruned before the inbox has ids and names, no key and no data, for {days}",
        "MongoDB's oplog and backups, and what handlers wrote of these events, are not touched",
    ]
    if wiring.routing.keyed and wiring.key_field is None:
        found.append("Rows that get their key by a function, as they are relayed, are not found")
    return tuple(found)
