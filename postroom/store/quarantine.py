"""The quarantine: rows that can never be sent, kept by id with the reason, so the rest flows on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo import ASCENDING, UpdateOne, WriteConcern
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store.outbox_rows import OutboxRows
from postroom.store.partitioning_record import run
from postroom.store.partitionings import successor
from postroom.store.transactions import transacted
from postroom.wire import QuarantineField

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from postroom.store.moment import Moment
    from postroom.store.values import OutboxPartition
    from postroom.topics import Topic

__all__ = ["Entry", "Quarantine", "Quarantined"]


READ_MS = 10_000
WRITE_MS = 10_000
# Larger replies are fewer: a second for the half million that one could put back in half an hour.
IDS_A_REPLY = 100_000
# For all that waits for a topic, which may be millions.
LOOK_MS = 60_000
IDS_A_DELETE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """One row that can never be sent, its number in the outbox partition, and why.

    With a `topic` it can be sent once that can be opened, and then returns by itself.
    `is_in_order` says that it was numbered by the change stream; a scan goes by ids.
    """

    row_id: Any
    position: int
    reason: str
    topic: Topic | None = None
    is_in_order: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row in quarantine, as it is listed."""

    row_id: Any
    position: int | None
    reason: str
    quarantined_at: datetime | None
    topic: Topic | None = None
    is_in_order: bool = False


class Quarantine:
    """Stores quarantined rows' ids; the rows stay in the outbox and are never pruned.

    An entry waits, until it is retried or discarded: whoever comes first, and the others change
    nothing. One that is retried is kept, unseen, until its row must have been relayed: the row's id
    may be so old that pruning, or a scan after lost history, would pass it by.
    """

    def __init__(self, database: Database[Any], *, partition: OutboxPartition) -> None:
        self._rows = database[wire.QUARANTINE].with_options(
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern(w="majority", wtimeout=WRITE_MS),
        )
        self._outbox = OutboxRows(database, partition=partition)
        self._partition = partition
        self._waiting = {
            QuarantineField.PARTITION: partition,
            QuarantineField.RETRIED_AT: None,
        }

    def store(self, rows: Iterable[Quarantined], *, session: ClientSession | None = None) -> None:
        """Store them; the same row stored twice, as a replay does, is one entry.

        A replay also meets the row as it was before it was retried, under the number that it had:
        that changes nothing. Under another number it is the retried row, which is poison again.
        """
        self._rows.bulk_write(
            [
                UpdateOne(
                    {QuarantineField.ID: row.row_id}, _stored(row, self._partition), upsert=True
                )
                for row in rows
            ],
            session=session,
        )

    def entries(self, *, limit: int = 0) -> list[Entry]:
        """Return what is in quarantine, oldest first; at most `limit` entries if that is given."""
        found = self._rows.find(self._waiting).sort(QuarantineField.QUARANTINED_AT, ASCENDING)
        return _entries(found.limit(limit))

    def awaited_topics(self) -> list[Topic]:
        """Return the topics for which rows were set aside, by name.

        From each to the next one in the index: `distinct` would read every row.
        """
        topics: list[Topic] = []
        while True:
            behind = {**self._waiting, QuarantineField.TOPIC: {"$gt": topics[-1] if topics else ""}}
            found = self._rows.find_one(
                behind,
                {QuarantineField.TOPIC: 1},
                sort=[(QuarantineField.TOPIC, ASCENDING)],
                max_time_ms=READ_MS,
            )
            if found is None:
                return topics
            topics.append(found[QuarantineField.TOPIC])

    def awaiting(self, topic: Topic, *, limit: int) -> list[Entry]:
        """Return the first rows that were set aside for a topic, in the order of their numbers."""
        found = self._rows.find(
            {**self._waiting, QuarantineField.TOPIC: topic}, max_time_ms=READ_MS
        )
        return _entries(found.sort(QuarantineField.POSITION, ASCENDING).limit(limit))

    def awaiting_ids(self, topic: Topic) -> Iterator[tuple[Any, int | None]]:
        """Yield the ids of all rows that were set aside for a topic, in their order.

        With their numbers, but for those that a scan or an earlier version gave.
        """
        found = self._rows.find(
            {**self._waiting, QuarantineField.TOPIC: topic},
            {QuarantineField.POSITION: 1, QuarantineField.IN_ORDER: 1},
            batch_size=IDS_A_REPLY,
            max_time_ms=LOOK_MS,
        )
        for row in found.sort(QuarantineField.POSITION, ASCENDING):
            is_in_order = row.get(QuarantineField.IN_ORDER) is True
            yield (
                row[QuarantineField.ID],
                row.get(QuarantineField.POSITION) if is_in_order else None,
            )

    def forget_returned(self, ids: list[Any]) -> None:
        """Let go of rows that were set aside for a topic, and are there now."""
        awaiting = {**self._waiting, QuarantineField.TOPIC: {"$ne": None}}
        for first in range(0, len(ids), IDS_A_DELETE):
            some = ids[first : first + IDS_A_DELETE]
            self._rows.delete_many({QuarantineField.ID: {"$in": some}, **awaiting})

    def retry(self, row_id: Any) -> bool:
        """Have a row relayed as it is now, behind all others; return whether that was done.

        It is not where the row does not wait in quarantine (any more: another operator was first,
        and MongoDB's write conflict decides between two at once), or is gone from the outbox; nor
        where it waits for its topic: it returns by itself, and would be sent twice.

        The row is deleted and inserted again in one transaction, which the change stream shows as a
        new row under the id that it had. Of an outbox partition that is closed it goes to the one
        that has its key now.

        Raises:
            OtherPartitioning: the outbox is being divided anew; try it again when that is done.
            pymongo.errors.PyMongoError: it is not known to be done; done again it changes nothing
                more where it was.

        """
        open_ones = run(self._rows.database, successor(self._partition))

        def again(session: ClientSession) -> bool:
            # The server's clock: an operator's may be slow, and the row would be pruned too early.
            retried = {"$currentDate": {QuarantineField.RETRIED_AT: True}}
            waiting = {QuarantineField.ID: row_id, **self._waiting, QuarantineField.TOPIC: None}
            found = self._rows.update_one(waiting, retried, session=session).modified_count > 0
            if found and open_ones is not None:
                name = self._outbox.place(row_id, open_ones, session)
                moved = {"$set": {QuarantineField.PARTITION: name or self._partition}}
                self._rows.update_one({QuarantineField.ID: row_id}, moved, session=session)
            if found and not self._outbox.put_again(row_id, session):
                session.abort_transaction()
                return False
            return found

        # Bounded as any other call: PyMongo would try the transaction, and its commit, for minutes.
        with (
            pymongo.timeout(WRITE_MS / 1000),
            self._rows.database.client.start_session() as session,
        ):
            return transacted(session, again, read_concern=ReadConcern("snapshot"))

    def discard(self, ids: list[Any]) -> int:
        """Have waiting rows pruned like those that were sent; return how many.

        One that was retried meanwhile is none of them: it is to be sent. The entries are kept,
        unseen, for as long as a scan after lost history could meet their rows.
        """
        found = {QuarantineField.ID: {"$in": ids}, **self._waiting}
        now = {QuarantineField.RETRIED_AT: True, QuarantineField.DISCARDED_AT: True}
        return self._rows.update_many(found, {"$currentDate": now}).modified_count

    def forget_sent(self, ids: list[Any]) -> None:
        """Let go of rows that an earlier term has set aside, and that are sent all the same.

        Also of those that wait for a topic: they may go to another one by now.
        """
        self._rows.delete_many({QuarantineField.ID: {"$in": ids}, **self._waiting})

    def is_empty(self) -> bool:
        """Say whether no row is in quarantine."""
        found = self._rows.find_one(self._waiting, {QuarantineField.ID: 1}, max_time_ms=READ_MS)
        return found is None

    def count(self, *, most: int = 0) -> int:
        """Return how many rows are in quarantine; no more than `most` are counted if given."""
        limit: dict[str, Any] = {"limit": most} if most else {}
        return self._rows.count_documents(self._waiting, maxTimeMS=READ_MS, **limit)

    def retried_since(self, since: datetime, moment: Moment) -> list[Any]:
        """Return the ids of rows that were retried since, as it was at a moment.

        The change stream behind that time shows those that are retried later.

        Raises:
            SnapshotGone: that moment is too long ago.

        """
        command = {
            "find": self._rows.name,
            "filter": {
                QuarantineField.PARTITION: self._partition,
                QuarantineField.RETRIED_AT: {"$gte": since},
                QuarantineField.DISCARDED_AT: None,
            },
            "projection": {QuarantineField.ID: 1},
            "batchSize": IDS_A_REPLY,
        }
        found = moment.find_all(command, self._rows.codec_options)
        return [row[QuarantineField.ID] for row in found]

    def forget_retried(self, before: datetime) -> None:
        """Let go of those that were retried, or discarded, before a time.

        By then what was retried has been relayed, and no scan meets what was discarded.
        """
        found = {
            QuarantineField.PARTITION: self._partition,
            QuarantineField.RETRIED_AT: {"$lt": before},
        }
        self._rows.delete_many(found)

    def among(self, ids: list[Any]) -> set[Any]:
        """Return those of `ids` that are quarantined, or were and may not have been relayed yet."""
        found = self._rows.find(
            {QuarantineField.ID: {"$in": ids}, QuarantineField.DISCARDED_AT: None},
            {QuarantineField.ID: 1},
            max_time_ms=READ_MS,
        )
        return {row[QuarantineField.ID] for row in found}


def _entries(rows: Iterable[Mapping[str, Any]]) -> list[Entry]:
    return [
        Entry(
            row_id=row[QuarantineField.ID],
            position=row.get(QuarantineField.POSITION),
            reason=row.get(QuarantineField.REASON, ""),
            quarantined_at=row.get(QuarantineField.QUARANTINED_AT),
            topic=row.get(QuarantineField.TOPIC),
            is_in_order=row.get(QuarantineField.IN_ORDER) is True,
        )
        for row in rows
    ]


def _stored(row: Quarantined, partition: OutboxPartition) -> list[dict[str, Any]]:
    same = {"$eq": [f"${QuarantineField.POSITION}", row.position]}
    fields = {
        QuarantineField.PARTITION: {"$literal": partition},
        QuarantineField.REASON: {"$literal": row.reason},
        QuarantineField.POSITION: row.position,
        QuarantineField.TOPIC: "$$REMOVE" if row.topic is None else {"$literal": row.topic},
        QuarantineField.IN_ORDER: True if row.topic is not None and row.is_in_order else "$$REMOVE",
        **{
            field: {"$cond": [same, f"${field}", "$$REMOVE"]}
            for field in (QuarantineField.RETRIED_AT, QuarantineField.DISCARDED_AT)
        },
        QuarantineField.QUARANTINED_AT: {
            "$ifNull": [f"${QuarantineField.QUARANTINED_AT}", "$$NOW"]
        },
    }
    return [{"$set": fields}]
