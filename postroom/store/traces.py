"""Traces: what MongoDB keeps of one event, found by its id alone and by indexes alone."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pymongo
from bson import MaxKey, ObjectId, Timestamp
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store.codec import SHOWING
from postroom.store.inbox_rows import RowId
from postroom.store.values import ResumeToken
from postroom.wire import BegunField, InboxField, OutboxField

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pymongo.database import Database

__all__ = ["HandledTrace", "RowTrace", "Traces", "made_at"]

READ_MS = 5_000
# The writer's clock, which makes ids and times, may be ahead of MongoDB's.
SKEW = timedelta(seconds=30)
AWAIT_MS = 100
MOST_HANDLERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTrace:
    """An event's row in the outbox, without its data; `written_at` by the writer's clock."""

    row_id: Any
    partition: str
    name: str | None
    written_at: datetime | None
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandledTrace:
    """That a handler has handled the event, or was begun with it and has not come back."""

    subscription: str
    handler: str
    handled_at: datetime | None = None
    begun_at: datetime | None = None
    begun_by: str | None = None


class Traces:
    """Looks for one event; each call is bounded, and reads what a majority has stored."""

    def __init__(self, database: Database[Any]) -> None:
        options: dict[str, Any] = {
            "codec_options": SHOWING,
            "read_concern": ReadConcern("majority"),
        }
        self._outbox = database.get_collection(wire.OUTBOX, **options)
        self._inbox = database.get_collection(wire.INBOX, **options)
        self._begun = database.get_collection(wire.BEGUN, **options)

    def row(self, ids: Sequence[Any]) -> RowTrace | None:
        """Return the row under one of the ids, or None."""
        shown = (
            OutboxField.PARTITION,
            OutboxField.OCCURRED_AT,
            OutboxField.SENT_AT,
            f"{OutboxField.DATA}.name",
        )
        found = self._outbox.find_one(
            {OutboxField.ID: {"$in": list(ids)}}, dict.fromkeys(shown, 1), max_time_ms=READ_MS
        )
        return None if found is None else _row(found)

    def committed_at(self, row: RowTrace, *, seconds: float) -> datetime | None:
        """Return the time of the transaction that wrote a row, where the oplog still tells it.

        Of the last one, where the row was written again to be redriven.
        """
        made = made_at(row.row_id) or row.written_at
        if made is None:
            return None
        found, end = None, datetime.now(UTC)
        with contextlib.suppress(mongo.PyMongoError), pymongo.timeout(seconds):
            for change in self._changes(row.row_id, made - SKEW):
                found = change["clusterTime"].as_datetime()
                if found > end:
                    break
        return found

    def _changes(self, row_id: Any, since: datetime) -> Iterator[Mapping[str, Any]]:
        pipeline = [
            {"$match": {"operationType": "insert", "documentKey._id": row_id}},
            {"$project": {"clusterTime": 1}},
        ]
        start = Timestamp(int(since.timestamp()), 1)
        now = self._outbox.database.command("ping")["operationTime"]
        with self._outbox.watch(
            pipeline, start_at_operation_time=start, max_await_time_ms=AWAIT_MS
        ) as stream:
            while stream.alive:
                change = stream.try_next()
                if change is not None:
                    yield change
                elif _has_passed(stream.resume_token, now):
                    return

    def handled(self, event_id: str) -> list[HandledTrace]:
        """Return which handlers have handled the event, and which were begun with it."""
        ids = [
            RowId(subscription=subscription, handler=handler, event_id=event_id).stored()
            for subscription, handler in self.handlers()
        ]
        begun = {
            _pair(row): row
            for row in self._begun.find({BegunField.ID: {"$in": ids}}, max_time_ms=READ_MS)
        }
        done = {
            _pair(row): row
            for row in self._inbox.find({InboxField.ID: {"$in": ids}}, max_time_ms=READ_MS)
        }
        return [
            HandledTrace(
                subscription=pair[0],
                handler=pair[1],
                handled_at=done.get(pair, {}).get(InboxField.HANDLED_AT),
                begun_at=begun.get(pair, {}).get(BegunField.BEGUN_AT),
                begun_by=begun.get(pair, {}).get(BegunField.OWNER),
            )
            for pair in sorted({*begun, *done})
        ]

    def handlers(self) -> list[tuple[str, str]]:
        """Return each subscription with each handler that the inbox knows."""
        return sorted({*self._pairs(self._inbox), *self._pairs(self._begun)})

    def _pairs(self, rows: Any) -> Iterator[tuple[str, str]]:
        """Yield each subscription and handler that there are rows of, by one look for each.

        The ids are objects of subscription, handler and event, and the index on them is sorted so.
        """
        after: dict[str, Any] = {}
        for _ in range(MOST_HANDLERS):
            found = rows.find_one(
                {InboxField.ID: {"$gt": after, "$type": "object"}},
                {InboxField.ID: 1},
                sort=[(InboxField.ID, 1)],
                max_time_ms=READ_MS,
            )
            if found is None:
                return
            row_id = found[InboxField.ID]
            subscription = row_id.get(InboxField.SUBSCRIPTION)
            handler = row_id.get(InboxField.HANDLER)
            if isinstance(subscription, str) and isinstance(handler, str) and subscription:
                yield subscription, handler
            after = {
                InboxField.SUBSCRIPTION: subscription,
                InboxField.HANDLER: handler,
                InboxField.EVENT_ID: MaxKey(),
            }


def made_at(row_id: Any) -> datetime | None:
    """Return when an id was made, if it tells."""
    return row_id.generation_time if isinstance(row_id, ObjectId) else None


def _row(found: Mapping[str, Any]) -> RowTrace:
    data = found.get(OutboxField.DATA)
    name = data.get("name") if isinstance(data, dict) else None
    written, sent = found.get(OutboxField.OCCURRED_AT), found.get(OutboxField.SENT_AT)
    row_id = found[OutboxField.ID]
    return RowTrace(
        row_id=row_id,
        partition=str(found.get(OutboxField.PARTITION, "")),
        name=name if isinstance(name, str) else None,
        written_at=written if isinstance(written, datetime) else made_at(row_id),
        sent_at=sent if isinstance(sent, datetime) else None,
    )


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    row_id = row[InboxField.ID]
    return row_id[InboxField.SUBSCRIPTION], row_id[InboxField.HANDLER]


def _has_passed(token: Mapping[str, Any] | None, now: Timestamp) -> bool:
    reached = ResumeToken(token).cluster_time if token is not None else None
    return reached is not None and reached >= now
