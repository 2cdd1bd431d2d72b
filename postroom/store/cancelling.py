"""Cancelling of many events at once, as operators do: each goes with its name, or neither does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store.codec import SHOWING
from postroom.store.schedule_names import Named, ScheduleNames, is_name
from postroom.store.transactions import transacted
from postroom.wire import ScheduledField

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

__all__ = ["cancel_all"]


def cancel_all(database: Database[Any], still: Mapping[str, Any]) -> int:
    """Delete what still waits by a condition, a thousand events or so; return how many.

    In one transaction, which is tried again where another one, or a relay that fires one of them,
    is in its way.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer, or refuses it.

    """
    plan = database.get_collection(wire.SCHEDULED, codec_options=SHOWING)
    names = ScheduleNames(database)
    shown = {ScheduledField.PARTITION: 1, ScheduledField.SCHEDULE: 1}

    def together(session: ClientSession) -> int:
        with_names = {"$and": [still, {ScheduledField.SCHEDULE: {"$type": "string"}}]}
        found = list(plan.find(with_names, shown, session=session))
        count = plan.delete_many(still, session=session).deleted_count
        names.take_all(_named(found), session)
        return count

    with database.client.start_session() as session:
        return transacted(session, together, read_concern=ReadConcern("snapshot"))


def _named(found: list[dict[str, Any]]) -> list[Named]:
    each = ((r.get(ScheduledField.PARTITION), r[ScheduledField.SCHEDULE], r) for r in found)
    return [
        Named(base=base, name=name, row_id=row[ScheduledField.ID])
        for base, name, row in each
        if isinstance(base, str) and is_name(name)
    ]
