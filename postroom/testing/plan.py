"""The plan in memory: events that are due later, by the commands that writers send for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from postroom import wire
from postroom.store.values import DEFAULT_PARTITION
from postroom.testing.refusal import not_faked
from postroom.wire import OutboxField, ScheduledField

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["answered", "fire", "waiting"]

OF_THE_PLAN = {ScheduledField.DUE_AT, ScheduledField.SLOT, ScheduledField.SCHEDULE}
KEPT = (ScheduledField.ID, ScheduledField.PARTITION, ScheduledField.SCHEDULE)


def answered(database: Any, command: Mapping[str, Any], session: Any) -> Mapping[str, Any]:
    """Answer a command to the plan.

    Raises:
        NotFaked: it is none that is sent for it.

    """
    name = next(iter(command))
    rows = database[wire.SCHEDULED]
    match name:
        case "find":
            found = list(rows.find(command["filter"], session=session).limit(command["limit"]))
            return {"ok": 1.0, "cursor": {"firstBatch": found}}
        case "delete":
            (deletion,) = command["deletes"]
            return {"ok": 1.0, "n": rows.delete_one(deletion["q"], session=session).deleted_count}
        case "update":
            (change,) = command["updates"]
            update = _evaluated(change["u"])
            return {
                "ok": 1.0,
                "n": rows.update_many(change["q"], update, session=session).matched_count,
            }
    raise not_faked(f"the command {name}")


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
    rows = database[wire.SCHEDULED].find({ScheduledField.FIRED_ID: None})
    return list(rows.sort([(ScheduledField.DUE_AT, 1), (ScheduledField.ID, 1)]))


def fire(database: Any, now: datetime) -> int:
    """Move what is due into the outbox, each in a transaction; return how many there were."""
    due = [row for row in waiting(database) if row[ScheduledField.DUE_AT] <= now]
    for row in due:
        fired = {name: row[name] for name in row if name not in OF_THE_PLAN}
        kept = {name: row[name] for name in KEPT if name in row}
        kept |= {ScheduledField.FIRED_ID: row[ScheduledField.ID], ScheduledField.FIRED_AT: now}
        with database.client.start_session() as session, session.start_transaction():
            database[wire.SCHEDULED].replace_one({"_id": row["_id"]}, kept, session=session)
            fired[OutboxField.PARTITION] = DEFAULT_PARTITION
            database[wire.OUTBOX].insert_one(fired, session=session)
    return len(due)
