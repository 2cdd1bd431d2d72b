"""Examining MongoDB: server, indexes, oplog, clock, and what waits in the outbox."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING
from pymongo import errors as mongo

from postroom import preflight, rights, wire
from postroom.counts import bound
from postroom.findings import Finding, Grade
from postroom.relay.watching.view import closed_partitions, views
from postroom.store import clients, server_time
from postroom.store.checkpoints import Checkpoints
from postroom.store.oplog import Oplog
from postroom.store.scheduled_search import ScheduledSearch
from postroom.wire import BegunField, CheckpointField, InboxField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pymongo.database import Database

    from postroom.operations.wiring import Wiring
    from postroom.relay.watching.view import PartitionView

__all__ = ["examine"]

MOST_SKEW = timedelta(seconds=5)
LAGGING = timedelta(minutes=1)
SHORT_WINDOW = timedelta(hours=1)
OVERDUE_SECONDS = 10.0
SETUP = "celery -A … outbox setup"
COLLECTIONS = (
    wire.OUTBOX,
    wire.CHECKPOINTS,
    wire.QUARANTINE,
    wire.SCHEDULED,
    wire.SCHEDULE_NAMES,
    wire.FIRED,
    wire.PARTITIONS,
    wire.INBOX,
    wire.BEGUN,
    wire.REPERTOIRES,
    wire.ACTIONS,
)
# Of those indexes that one of another name may stand in for.
FIELDS = {
    wire.CHECKPOINT_INDEX: CheckpointField.PARTITION,
    wire.INBOX_EXPIRY_INDEX: InboxField.HANDLED_AT,
    wire.BEGUN_EXPIRY_INDEX: BegunField.BEGUN_AT,
}
# A little longer than the driver gives a member to take a connection.
CONNECT_SECONDS = 5.5


def examine(database: Database[Any], wiring: Wiring) -> list[Finding]:
    """Look at MongoDB.

    Raises:
        pymongo.errors.PyMongoError: it does not answer at all.

    """
    fit = preflight.mongodb(database.client)
    if any(finding.grade is Grade.FAIL for finding in fit):
        return fit
    version = database.client.server_info()["version"]
    found = [*fit, Finding(what="MongoDB's version", found=f"MongoDB is {version}")]
    looks = (_members, _rights, _clock, _collections, _indexes, _oplog, _partitions, _scheduled)
    for look in looks:
        found += _allowed(look, database, wiring)
    return found


def _allowed(
    look: Callable[[Database[Any], Wiring], Iterator[Finding]],
    database: Database[Any],
    wiring: Wiring,
) -> list[Finding]:
    """Look, and make a finding of what was not allowed."""
    try:
        return list(look(database, wiring))
    except mongo.OperationFailure as error:
        return [
            Finding(
                what=f"rights of who looks ({(look.__name__).strip('_')})",
                found=wiring.sentences.of(error),
                grade=Grade.WARN,
                remedy="Grant the user of POSTROOM_MONGODB_URI what docs/security.md names for an "
                "operator",
            )
        ]


def _members(database: Database[Any], _: Wiring) -> Iterator[Finding]:
    client = database.client
    away = clients.members_away(client, seconds=CONNECT_SECONDS)
    count = len(client.topology_description.server_descriptions())
    what = "members of MongoDB"
    if away:
        yield Finding(
            what=what,
            found=f"Of {count} members {', '.join(away)} {'does' if len(away) == 1 else 'do'} not "
            "answer: without a majority of them nothing is written or relayed",
            grade=Grade.WARN,
            remedy='mongosh --eval "rs.status()" says why; start mongod there again',
        )
    else:
        yield Finding(what=what, found=f"All of them answer ({count})")


def _rights(database: Database[Any], _: Wiring) -> Iterator[Finding]:
    yield from rights.in_mongodb(database.client, database.name, "operator")


def _clock(database: Database[Any], wiring: Wiring) -> Iterator[Finding]:
    before = datetime.now(UTC)
    theirs = server_time.now(database)
    after = datetime.now(UTC)
    off = abs(theirs - (before + (after - before) / 2))
    margin = timedelta(hours=wiring.settings.history_margin_hours)
    seconds = f"{off.total_seconds():.1f} s"
    if off <= MOST_SKEW + (after - before):
        yield Finding(what="clocks", found=f"This clock and MongoDB's are {seconds} apart")
        return
    yield Finding(
        what="clocks",
        found=f"This clock and MongoDB's are {seconds} apart; after lost history, rows whose "
        f"writers' clocks differ by more than the margin of {margin} may be passed by",
        grade=Grade.FAIL if off > margin else Grade.WARN,
        remedy="timedatectl set-ntp true",
    )


def _collections(database: Database[Any], _: Wiring) -> Iterator[Finding]:
    yield from preflight.collections(database, COLLECTIONS)
    yield from preflight.deletions(database, COLLECTIONS)


def _indexes(database: Database[Any], wiring: Wiring) -> Iterator[Finding]:
    there = set(database.list_collection_names())
    keep = int(wiring.settings.inbox_days * 86_400)
    for name, index, seconds in (
        (wire.CHECKPOINTS, wire.CHECKPOINT_INDEX, None),
        (wire.QUARANTINE, wire.QUARANTINE_INDEX, None),
        (wire.SCHEDULED, wire.SCHEDULED_DUE_INDEX, None),
        (wire.FIRED, wire.FIRED_INDEX, None),
        (wire.FIRED, wire.FIRED_IDS_INDEX, None),
        (wire.INBOX, wire.INBOX_EXPIRY_INDEX, keep),
        (wire.BEGUN, wire.BEGUN_EXPIRY_INDEX, None),
    ):
        if name in {wire.SCHEDULED, wire.FIRED} and name not in there:
            continue  # nothing was ever scheduled, or was due
        what = f"index of {name}"
        found = database[name].index_information() if name in there else {}
        index = _serving(found, index)  # noqa: PLW2901 - one made beforehand
        if index not in found:
            why = "there is no index" if name in there else "there is no such collection yet, nor"
            yield Finding(what=what, found=f"{name}: {why} {index}", grade=Grade.WARN, remedy=SETUP)
        elif seconds is not None and found[index].get("expireAfterSeconds") != seconds:
            kept = timedelta(seconds=found[index].get("expireAfterSeconds", 0))
            yield Finding(
                what=what,
                found=f"The inbox remembers for {kept}, and POSTROOM_INBOX_DAYS says "
                f"{wiring.settings.inbox_days:g} days",
                grade=Grade.WARN,
                remedy=SETUP,
            )
        else:
            yield Finding(what=what, found=f"{name} has {index}")


def _serving(found: Mapping[str, Any], index: str) -> str:
    """Return the name of the index that serves as ours: that one, or another of the same field."""
    field = FIELDS.get(index)
    same = (name for name, options in found.items() if [*options["key"]] == [(field, ASCENDING)])
    return index if index in found else next(same, index)


def _scheduled(database: Database[Any], _: Wiring) -> Iterator[Finding]:
    for found in ScheduledSearch(database).overview():
        what = f"scheduled events of {found.outbox}"
        if found.refused:
            yield Finding(
                what=what,
                found=f"{found.refused} of them cannot go into the outbox; each says why",
                grade=Grade.WARN,
                remedy=f"celery -A … outbox scheduled list --partition {found.outbox}",
            )
        if found.overdue > found.refused and found.oldest_overdue_seconds > OVERDUE_SECONDS:
            yield Finding(
                what=what,
                found=f"{found.overdue} were due and are not sent, the oldest for "
                f"{found.oldest_overdue_seconds:.0f} s: no relay moves them, or one that lags",
                grade=Grade.WARN,
                remedy="celery -A … outbox status",
            )
        if not found.overdue:
            yield Finding(what=what, found=f"{found.waiting} wait, none is overdue")


def _oplog(database: Database[Any], wiring: Wiring) -> Iterator[Finding]:
    oplog = Oplog.of(database.client)
    if oplog is None:
        yield Finding(what="oplog", found="Through mongos it cannot be seen: look at each shard's")
        return
    margin = timedelta(hours=wiring.settings.history_margin_hours)
    remedy = 'mongosh --eval "db.adminCommand({replSetResizeOplog: 1, size: 16384})"'
    closed = closed_partitions(database)
    for checkpoint in Checkpoints(database).all():
        if checkpoint.partition in closed:
            continue  # nothing is read there any more
        reached = checkpoint.cluster_time
        if checkpoint.token is not None:
            reached = checkpoint.token.cluster_time or reached
        if reached is None or checkpoint.scan is not None:
            continue
        left = oplog.left_for(reached.as_datetime())
        what = f"oplog for outbox partition {checkpoint.partition}"
        if left is None:
            yield Finding(
                what=what,
                found="The oplog no longer reaches back to the checkpoint: the relay goes on by "
                f"scanning the collection, from {margin} before it",
                grade=Grade.FAIL,
                remedy=remedy,
            )
        elif oplog.is_full and left < max(SHORT_WINDOW, margin):
            yield Finding(
                what=what,
                found=f"The oplog reaches back {_hours(oplog.window)} in all, and {_hours(left)} "
                "further than the checkpoint: a relay that is away for longer has to scan",
                grade=Grade.WARN,
                remedy=remedy,
            )
        else:
            more = "" if oplog.is_full else ", and is not full yet"
            yield Finding(
                what=what,
                found=f"The oplog reaches back {_hours(oplog.window)}, {_hours(left)} further than "
                f"the checkpoint{more}",
            )


def _partitions(database: Database[Any], _: Wiring) -> Iterator[Finding]:
    found = views(database)
    for view in found.partitions:
        yield from _partition(view)
        yield from _quarantined(view)
    if not found.partitions:
        yield Finding(what="outbox partitions", found="No relay was ever started, and no row waits")


def _partition(view: PartitionView) -> Iterator[Finding]:
    what, name = f"outbox partition {view.partition}", view.partition
    count = _rows(view)
    lag = view.lag_seconds
    late = lag is not None and lag > LAGGING.total_seconds()
    if view.following:
        yield Finding(
            what=what,
            found="The outbox is being divided anew, and this is relayed once what was before is "
            f"relayed and consumed: {count} wait",
            grade=Grade.WARN if late else Grade.OK,
            # It says which number the change is to be finished with, where nobody does.
            remedy="celery -A … outbox partitions" if late else "",
        )
    elif not view.ever_relayed:
        yield Finding(
            what=what,
            found=f"{count} wait, and no relay was ever started for it",
            grade=Grade.FAIL,
            remedy=f"celery -A … worker -Q relay.{name}",
        )
    elif view.closed:
        yield Finding(what=what, found="It is closed, and all of it was relayed before")
    elif view.paused_by is not None:
        yield Finding(
            what=what,
            found=f"It was paused by {view.paused_by}: {count} wait",
            grade=Grade.WARN,
            remedy=f"celery -A … outbox resume --partition {name}",
        )
    elif late:
        yield Finding(
            what=what,
            found=f"{count} wait, the oldest for {lag} s: its relay stands still, does not "
            "keep up, or is not there",
            grade=Grade.WARN,
            remedy="celery -A … inspect stats",
        )
    else:
        yield Finding(what=what, found=f"It is relayed up to position {view.position or 0}")


def _quarantined(view: PartitionView) -> Iterator[Finding]:
    if view.quarantined_now or view.quarantined_more:
        yield Finding(
            what=f"quarantine of {view.partition}",
            found=(
                f"{bound(more=view.quarantined_more)}{view.quarantined_now} rows are set aside"
            ).capitalize(),
            grade=Grade.WARN,
            remedy=f"celery -A … outbox quarantine list --partition {view.partition}",
        )


def _rows(view: PartitionView) -> str:
    if not view.waiting:
        return "rows may" if view.waiting is None or view.waiting_at_least else "0 rows"
    return f"{bound(more=view.waiting_at_least)}{view.waiting} rows"


def _hours(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours:.1f} hours" if hours >= 1 else f"{span.total_seconds() / 60:.0f} minutes"
