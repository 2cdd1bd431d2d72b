"""The action log: what operators did, kept for a year beside what they did it to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bson import ObjectId
from pymongo import DESCENDING, WriteConcern
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store import expiry_index
from postroom.wire import ActionField

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymongo.database import Database

__all__ = ["UNDER_WAY", "Action", "ActionLog"]

KEEP = timedelta(days=366)
READ_MS = 5_000
WRITE_MS = 10_000
UNDER_WAY = "under way, or ended without a word"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One act: who did what, when and by which program, to what, and what came of it.

    `target` names the outbox partition, or topic and subscription. `where` is the filter as it was
    given. `count` is how many rows, letters or other things were acted upon.
    """

    id: str = ""
    what: str
    who: str
    by: str
    target: str
    where: Mapping[str, str] = field(default_factory=dict)
    began_at: datetime | None = None
    ended_at: datetime | None = None
    count: int = 0
    result: str = UNDER_WAY


class ActionLog:
    """Writes and reads the log. An act is noted before it begins, and its end when it has ended."""

    def __init__(self, database: Database[Any]) -> None:
        self._rows = database[wire.ACTIONS].with_options(
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern(w="majority", wtimeout=WRITE_MS),
        )

    def prepare(self) -> None:
        """Make the index by which rows expire."""
        expiry_index.prepare(
            self._rows,
            ActionField.BEGAN_AT,
            name=wire.ACTIONS_EXPIRY_INDEX,
            seconds=int(KEEP.total_seconds()),
        )

    def begin(self, action: Action) -> ObjectId:
        """Note that an act begins, and return what its end is to be noted under."""
        self.prepare()
        row = {
            ActionField.ID: ObjectId(),
            ActionField.WHAT: action.what,
            ActionField.WHO: action.who,
            ActionField.BY: action.by,
            ActionField.TARGET: action.target,
            ActionField.WHERE: dict(action.where),
            ActionField.BEGAN_AT: datetime.now(UTC),
        }
        self._rows.insert_one(row)
        return row[ActionField.ID]  # type: ignore[return-value]

    def end(self, action_id: ObjectId, *, count: int, result: str) -> None:
        """Note what came of an act."""
        fields = {
            ActionField.ENDED_AT: datetime.now(UTC),
            ActionField.COUNT: count,
            ActionField.RESULT: result,
        }
        self._rows.update_one({ActionField.ID: action_id}, {"$set": fields})

    def latest(self, *, skip: int = 0, limit: int = 100) -> list[Action]:
        """Return the latest acts, newest first."""
        found = self._rows.find(max_time_ms=READ_MS).sort(ActionField.ID, DESCENDING)
        return [_action(row) for row in found.skip(skip).limit(limit)]


def _action(row: Mapping[str, Any]) -> Action:
    return Action(
        id=str(row[ActionField.ID]),
        what=row.get(ActionField.WHAT, ""),
        who=row.get(ActionField.WHO, ""),
        by=row.get(ActionField.BY, ""),
        target=row.get(ActionField.TARGET, ""),
        where=row.get(ActionField.WHERE) or {},
        began_at=row.get(ActionField.BEGAN_AT),
        ended_at=row.get(ActionField.ENDED_AT),
        count=row.get(ActionField.COUNT, 0),
        result=row.get(ActionField.RESULT, UNDER_WAY),
    )
