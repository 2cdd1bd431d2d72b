"""The view of an outbox partition: who relays it, how far, and what waits, by the database alone.

A relay's own numbers, in `inspect stats` and Flower, have the same names for the same things.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo import errors as mongo

from postroom.relay.watching import backlog, unattended
from postroom.server_codes import UNAUTHORIZED
from postroom.store import holdings, partitioning_record, server_time
from postroom.store.checkpoints import Checkpoints
from postroom.store.quarantine import Quarantine
from postroom.store.values import OutboxPartition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymongo.database import Database

    from postroom.relay.watching.backlog import Backlog
    from postroom.relay.watching.unattended import Unattended
    from postroom.store.checkpoints import Checkpoint
    from postroom.store.holdings import Holding
    from postroom.store.partitioning_record import Record

__all__ = ["NOBODY", "PartitionView", "Views", "closed_partitions", "views"]

NOBODY = "nobody"
NONE_WAIT = backlog.Backlog(rows=0, oldest=None, at_least=False)
# A relay shows every three seconds that it lives.
SILENT_SECONDS = 20.0

# `outbox status` answers within two seconds, of which Celery needs the first one to start.
WAITING_SECONDS = 0.5
UNATTENDED_SECONDS = 0.25
QUARANTINE_SECONDS = 0.1
# How many are counted, the fewer first: what was counted when the time is over is known for sure.
QUARANTINE_STEPS = (1, 1_000, 100_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionView:
    """One outbox partition.

    `owner` is the relay that last took office, in `epoch`, at `owned_since`; whether it still
    lives, its mutex tells. Without `ever_relayed` no relay was started for it yet, and its rows
    wait for one. `relayed_until` is the cluster time up to which the checkpoint says that all is
    relayed.

    `waiting` counts the rows that are committed and not relayed, and with `waiting_at_least` there
    may be more: the counting is bounded. `lag_seconds` is the age of the oldest of them, 0 where
    none waits. Both are None in a scan, which does not tell. `quarantined_now` counts the rows that
    are set aside at this moment, and with `quarantined_more` there may be more: that counting is
    bounded too. `paused_by` is the operator who has the relay stand still.

    One that is `closed` is of an outbox that was divided anew since: all of it was relayed before,
    nothing is written to it any more, and no relay is wanted for it. One that is `following` is of
    an outbox that is being divided anew: it is written already, and relays begin once those before
    it are relayed and consumed.

    Of an outbox that is divided, `served_by` is the relay worker that has it, or NOBODY: none has,
    or the one that had it gives no sign of life. `wanted_by` is the one that it will be given to.
    """

    partition: str
    ever_relayed: bool
    closed: bool = False
    following: bool = False
    served_by: str | None = None
    wanted_by: str | None = None
    owner: str | None = None
    epoch: int | None = None
    owned_since: datetime | None = None
    position: int | None = None
    last_relayed_row: str | None = None
    checkpointed_at: datetime | None = None
    relayed_until: datetime | None = None
    waiting: int | None
    waiting_at_least: bool
    lag_seconds: int | None
    scanning: bool = False
    topics: Sequence[str] = ()
    quarantined_now: int
    quarantined_more: bool = False
    paused_by: str | None = None
    paused_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Every outbox partition that was found, by name.

    Those that a relay was ever started for are all there; of the others only if `complete`.
    """

    partitions: Sequence[PartitionView]
    complete: bool


def views(database: Database[Any]) -> Views:
    """Look at every outbox partition, for about a second at most.

    Raises:
        pymongo.errors.PyMongoError: the checkpoints cannot be read.

    """
    checkpoints = Checkpoints(database).all()
    now = server_time.now(database)
    records = _records(database)
    closed, following = _closed(records), _following(records)
    known = [each.partition for each in checkpoints]
    found = unattended.find(database, known=known, seconds=UNATTENDED_SECONDS)
    views, end = [], time.monotonic() + WAITING_SECONDS
    for index, checkpoint in enumerate(checkpoints):
        part_seconds = (end - time.monotonic()) / (len(checkpoints) - index)
        is_closed = checkpoint.partition in closed
        waiting: backlog.Backlog | None = NONE_WAIT
        if not is_closed:  # the oplog need not reach back to the checkpoint of one that is
            waiting = backlog.behind(database, checkpoint, seconds=part_seconds)
        view = _relayed(database, checkpoint, waiting, now)
        views.append(dataclasses.replace(view, closed=is_closed))
    views += [_unattended(database, each, now) for each in found.partitions]
    views = _shared(database, records, views, now)
    views = [
        dataclasses.replace(view, following=True) if view.partition in following else view
        for view in views
    ]
    return Views(partitions=sorted(views, key=_in_order), complete=found.complete)


def closed_partitions(database: Database[Any]) -> frozenset[str]:
    """Return the outbox partitions of outboxes that were divided anew since, all relayed before.

    Raises:
        pymongo.errors.PyMongoError: the partitionings cannot be read.

    """
    return _closed(_records(database))


def _closed(records: Sequence[Record]) -> frozenset[str]:
    return frozenset(name for record in records for name in record.relayed_names)


def _following(records: Sequence[Record]) -> frozenset[str]:
    return frozenset(
        name for record in records if record.next_is_written for name in record.following.names
    )


def _records(database: Database[Any]) -> Sequence[Record]:
    try:
        return partitioning_record.run(database, partitioning_record.read_all())
    except mongo.OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        return ()  # whoever looks may not know, and everything else can be told


def _shared(
    database: Database[Any],
    records: Sequence[Record],
    views: Sequence[PartitionView],
    now: datetime,
) -> list[PartitionView]:
    """Say who serves what of divided outboxes, also where nothing was ever written or relayed."""
    names = [n for r in records for n in r.partitioning.names if r.partitioning.is_divided]
    shared = {each.partition: each for each in holdings.read(database, names)}
    known = {view.partition for view in views}
    new = [
        PartitionView(
            partition=name,
            ever_relayed=False,
            waiting=0,
            waiting_at_least=False,
            lag_seconds=0,
            quarantined_now=0,
        )
        for name in names
        if name not in known
    ]
    return [
        dataclasses.replace(view, served_by=_server(held, now), wanted_by=held.wanted_by)
        if (held := shared.get(OutboxPartition(view.partition))) is not None
        else view
        for view in (*views, *new)
    ]


def _server(holding: Holding, now: datetime) -> str:
    alive_at = holding.sign[1]
    if holding.holder is None:
        return NOBODY
    silent = alive_at is None or (now - alive_at).total_seconds() > SILENT_SECONDS
    return NOBODY if silent and not holding.is_paused else holding.holder


def _in_order(view: PartitionView) -> tuple[str, int, str]:
    stem, _, number = view.partition.rpartition("-")
    return (stem, int(number), "") if number.isdecimal() else (view.partition, 0, number)


def _relayed(
    database: Database[Any], checkpoint: Checkpoint, waiting: Backlog | None, now: datetime
) -> PartitionView:
    until, last = checkpoint.cluster_time, checkpoint.last_id
    quarantined, more = _quarantined(database, checkpoint.partition)
    return PartitionView(
        partition=checkpoint.partition,
        # A change of the number says where the first relay begins.
        ever_relayed=checkpoint.owner is not None or checkpoint.updated_at is not None,
        owner=checkpoint.owner,
        epoch=checkpoint.epoch or None,
        owned_since=checkpoint.owned_at,
        position=checkpoint.position or None,
        last_relayed_row=None if last is None else str(last),
        checkpointed_at=checkpoint.updated_at,
        relayed_until=datetime.fromtimestamp(until.time, UTC) if until else None,
        waiting=None if waiting is None else waiting.rows,
        waiting_at_least=waiting is not None and waiting.at_least,
        lag_seconds=None if waiting is None else _lag(waiting, now),
        scanning=checkpoint.scan is not None,
        topics=list(checkpoint.lanes),
        quarantined_now=quarantined,
        quarantined_more=more,
        paused_by=checkpoint.paused_by,
        paused_since=checkpoint.paused_at,
    )


def _unattended(database: Database[Any], found: Unattended, now: datetime) -> PartitionView:
    quarantined, more = _quarantined(database, found.partition)
    return PartitionView(
        partition=found.partition,
        ever_relayed=False,
        waiting=found.backlog.rows,
        waiting_at_least=found.backlog.at_least,
        lag_seconds=_lag(found.backlog, now),
        quarantined_now=quarantined,
        quarantined_more=more,
    )


def _lag(waiting: Backlog, now: datetime) -> int | None:
    if waiting.oldest is not None:
        return max(0, int((now - waiting.oldest).total_seconds()))
    return None if waiting.rows or waiting.at_least else 0


def _quarantined(database: Database[Any], partition: Any) -> tuple[int, bool]:
    """Count what is in quarantine, for a moment, and say whether there may be more."""
    quarantine, counted = Quarantine(database, partition=partition), 0
    try:
        with pymongo.timeout(QUARANTINE_SECONDS):
            for most in QUARANTINE_STEPS:
                found = quarantine.count(most=most + 1)
                if found <= most:
                    return found, False
                counted = most
    except mongo.PyMongoError as error:
        if not error.timeout:
            raise
    return counted, True
