"""Key rows: all that the outbox keeps of the events of one key, and what may go of it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo import WriteConcern
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.events import id_text
from postroom.store.cancelling import cancel_all
from postroom.store.codec import READING
from postroom.store.inbox_rows import RowId
from postroom.wire import BegunField, InboxField, OutboxField, QuarantineField

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from pymongo.database import Database

__all__ = ["KeyRows", "batches", "matching"]

# A whole collection is read, since no index is on keys.
SEARCH_MS = 600_000
READ_MS = 30_000
WRITE_MS = 10_000
ROWS_AT_ONCE = 1000


def matching(keys: Sequence[Any], fields: Iterable[tuple[str | None, str]]) -> dict[str, Any]:
    """Return the condition for rows of a key, in the forms that it may be stored in.

    The row's own key, or where it has none a field of the data: `fields` are each of the name of
    events, None for all, and the field that keys them.
    """
    forms = {"$in": list(keys)}
    found: list[dict[str, Any]] = [{OutboxField.KEY: forms}]
    for name, field in fields:
        by_field: dict[str, Any] = {
            OutboxField.KEY: None,
            f"{OutboxField.DATA}.data.{field}": forms,
        }
        if name is not None:
            by_field[f"{OutboxField.DATA}.name"] = name
        found.append(by_field)
    return {"$or": found}


class KeyRows:
    """Finds and deletes what MongoDB keeps of the events of one key; each call is bounded."""

    def __init__(self, database: Database[Any], condition: Mapping[str, Any]) -> None:
        self._database = database
        self._condition = condition
        options: dict[str, Any] = {
            "codec_options": READING,
            "read_concern": ReadConcern("majority"),
            "write_concern": WriteConcern(w="majority", wtimeout=WRITE_MS),
        }
        self._outbox = database.get_collection(wire.OUTBOX, **options)
        self._scheduled = database.get_collection(wire.SCHEDULED, **options)
        self._quarantine = database.get_collection(wire.QUARANTINE, **options)
        self._inbox = database.get_collection(wire.INBOX, **options)
        self._begun = database.get_collection(wire.BEGUN, **options)

    def ids(self) -> dict[str, list[Any]]:
        """Return the ids of the rows that are there now, by outbox partition."""
        shown = {OutboxField.ID: 1, OutboxField.PARTITION: 1}
        found: dict[str, list[Any]] = {}
        for row in self._outbox.find(self._condition, shown, max_time_ms=SEARCH_MS):
            partition = str(row.get(OutboxField.PARTITION, ""))
            found.setdefault(partition, []).append(row[OutboxField.ID])
        return found

    def scheduled(self) -> int:
        """Return how many events are not due yet."""
        return self._scheduled.count_documents(self._condition, maxTimeMS=SEARCH_MS)

    def delete_scheduled(self) -> int:
        """Delete those and their names, which cancels them; return how many."""
        found = self._scheduled.find(self._condition, {OutboxField.ID: 1}, max_time_ms=SEARCH_MS)
        ids = [row[OutboxField.ID] for row in found]
        return sum(
            cancel_all(self._database, {**self._condition, OutboxField.ID: {"$in": list(some)}})
            for some in batches(ids)
        )

    def unsent(self, ids: Sequence[Any]) -> list[Any]:
        """Return those of some ids whose rows are in quarantine and are to be sent all the same.

        They wait for their topic, or were put back a moment ago.
        """
        found = self._quarantine.find(
            {
                QuarantineField.ID: {"$in": list(ids)},
                QuarantineField.DISCARDED_AT: None,
                "$or": [
                    {QuarantineField.TOPIC: {"$ne": None}},
                    {QuarantineField.RETRIED_AT: {"$ne": None}},
                ],
            },
            {QuarantineField.ID: 1},
            max_time_ms=READ_MS,
        )
        return [row[QuarantineField.ID] for row in found]

    def quarantined(self, ids: Sequence[Any]) -> int:
        """Return how many of some ids are in quarantine."""
        found = {QuarantineField.ID: {"$in": list(ids)}}
        return self._quarantine.count_documents(found, maxTimeMS=READ_MS)

    def delete_quarantined(self, ids: Sequence[Any]) -> int:
        """Delete what the quarantine keeps of some ids; return how many entries."""
        found = {QuarantineField.ID: {"$in": list(ids)}}
        return self._quarantine.delete_many(found).deleted_count

    def handled(self, ids: Sequence[Any], pairs: Iterable[tuple[str, str]]) -> HandledRows:
        """Return what the inbox keeps of the events of some ids, for subscriptions' handlers."""
        stored = _stored(ids, pairs)
        rows = {InboxField.ID: {"$in": stored}}
        begun = self._begun.find({BegunField.ID: {"$in": stored}}, max_time_ms=READ_MS)
        return HandledRows(
            list(self._inbox.find(rows, {InboxField.HANDLED_AT: 1}, max_time_ms=READ_MS)),
            list(begun),
        )

    def delete_handled(self, handled: HandledRows) -> int:
        """Delete that from the inbox; return how many rows."""
        stored = [row[InboxField.ID] for row in handled.rows]
        return self._inbox.delete_many({InboxField.ID: {"$in": stored}}).deleted_count


class HandledRows:
    """What the inbox keeps of some events: rows, and with which of them a handler was begun."""

    def __init__(self, rows: list[dict[str, Any]], begun: list[dict[str, Any]]) -> None:
        self.rows = rows
        self._begun = begun

    def too_new(self, age: timedelta) -> set[str]:
        """Return the ids of events that may come once more: their message may be unacknowledged."""
        since = datetime.now(UTC).replace(tzinfo=None) - age
        late = [row for row in self.rows if row.get(InboxField.HANDLED_AT, since) >= since]
        return {row[InboxField.ID][InboxField.EVENT_ID] for row in (*late, *self._begun)}


def _stored(ids: Sequence[Any], pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        RowId(subscription=subscription, handler=handler, event_id=id_text(row_id)).stored()
        for (subscription, handler), row_id in itertools.product(pairs, ids)
    ]


def batches(ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield some ids at a time."""
    for first in range(0, len(ids), ROWS_AT_ONCE):
        yield ids[first : first + ROWS_AT_ONCE]
