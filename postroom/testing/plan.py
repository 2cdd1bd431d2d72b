"""The plan in memory: events that are due later, by the commands that writers send for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from postroom import wire
from postroom.store.values import DEFAULT_PARTITION
from postroom.testing.refusal import not_faked
from postroom.wire import FiredField, OutboxField, ScheduledField

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COLLECTIONS", "answered", "fire", "waiting"]

COLLECTIONS = frozenset({wire.SCHEDULED, wire.SCHEDULE_NAMES, wire.FIRED})
OF_THE_PLAN = {ScheduledField.DUE_AT, ScheduledField.SLOT, ScheduledField.SCHEDULE}


def answered(database: Any, command: Mapping[str, Any], session: Any) -> Mapping[str, Any]:
    """Answer a command to the plan.

    Raises:
        NotFaked: it is none that is sent for it.

    """
    name = next(iter(command))
    rows = database[command[name]]
    match name:
        case "find":
            found = list(rows.find(command["filter"], session=session).limit(command["limit"]))
            return {"ok": 1.0, "cursor": {"firstBatch": found}}
        case "delete":
            (deletion,) = command["deletes"]
            return {"ok": 1.0, "n": rows.delete_one(deletion["q"], session=session).deleted_count}
        case "update":
            (change,) = command["updates"]
            return _updated(rows, change, session)
    raise not_faked(f"the command {name}")


def _updated(rows: Any, change: Mapping[str, Any], session: Any) -> dict[str, Any]:
    update, upsert = change["u"], change.get("upsert", False)
    if isinstance(update, list):
        update = _evaluated(update)
    done = rows.update_many(change["q"], update, upsert=upsert, session=session)
    if done.upserted_id is None:
        return {"ok": 1.0, "n": done.matched_count}
    return {"ok": 1.0, "n": 1, "upserted": [{"index": 0, "_id": done.upserted_id}]}


def _evaluated(stages: Any) -> dict[str, Any]:
    """Return an update of the plan as one without expressions: by this machine's clock."""
    changed, removed = stages
    due = changed["$set"][ScheduledField.DUE_AT]
    if isinstance(due, dict):
        _, milliseconds = due["$add"]
        due = datetime.now(UTC) + timedelta(milliseconds=milliseconds)
    return {
        "$set": {ScheduledField.DUE_AT: due},
        "$unset": dict.fromkeys(removed["$unset"], ""),
    }


def waiting(database: Any) -> list[dict[str, Any]]:
    """Return what waits, in the order in which it is due."""
    rows = database[wire.SCHEDULED].find({})
    return list(rows.sort([(ScheduledField.DUE_AT, 1), (ScheduledField.ID, 1)]))


def fire(database: Any, now: datetime) -> int:
    """Move what is due into the outbox, each in a transaction; return how many there were."""
    due = [row for row in waiting(database) if row[ScheduledField.DUE_AT] <= now]
    for row in due:
        fired = {name: row[name] for name in row if name not in OF_THE_PLAN}
        fired[OutboxField.PARTITION] = DEFAULT_PARTITION
        kept = {
            FiredField.PARTITION: row[ScheduledField.PARTITION],
            FiredField.AT: now,
            FiredField.IDS: [row[ScheduledField.ID]],
        }
        with database.client.start_session() as session, session.start_transaction():
            database[wire.SCHEDULED].delete_one({"_id": row["_id"]}, session=session)
            database[wire.FIRED].insert_one(kept, session=session)
            database[wire.OUTBOX].insert_one(fired, session=session)
    return len(due)
