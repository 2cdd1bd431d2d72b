"""Left rows: what stays in the plan though it is due, each with its reason, and harms no other."""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import UTC
from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

from postroom import wire
from postroom.events import id_text
from postroom.reminders import Reminders
from postroom.store.odd_rows import OddRows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymongo.database import Database

    from postroom.store.due_rows import DueRows
    from postroom.store.values import OutboxPartition

__all__ = ["LeftRows"]

logger = logging.getLogger(__name__)

MOST_REMEMBERED = 100
# What was fired is passed by one by one for it.
LOOK_FOR_UNDATED_SECONDS = 3600.0
SAY_AGAIN_SECONDS = 3600.0


class LeftRows:
    """Leaves rows that cannot be moved, says so, and looks for those that nobody comes upon.

    `unmarked` are the ids of those in which MongoDB does not take the reason either: they are left
    out by them until forget() is called. Used by one thread.
    """

    def __init__(self, database: Database[Any], partition: OutboxPartition) -> None:
        self.unmarked: list[Any] = []
        self._database = database
        self._partition = partition
        self._said = Reminders(every_seconds=SAY_AGAIN_SECONDS)
        self._looked_at = -LOOK_FOR_UNDATED_SECONDS

    def forget(self) -> None:
        """Have the unmarked ones tried again."""
        self.unmarked.clear()

    def leave(self, rows: DueRows, row_id: Any, which: Mapping[str, Any], why: str) -> None:
        """Have a row left, by the condition that finds it.

        Raises:
            pymongo.errors.PyMongoError: MongoDB did not answer, or refuses every row.

        """
        if not _is_marked(rows, which, why):
            self.unmarked = [*self.unmarked[-MOST_REMEMBERED + 1 :], row_id]
        text = id_text(row_id)
        if self._said.is_due(text):
            logger.error(
                "The scheduled event %s of outbox partition %r is left in %s: %s. `outbox scheduled"
                " list` shows it; `outbox scheduled fire` has it tried again, or cancel it there",
                text,
                self._partition,
                wire.SCHEDULED,
                why,
                extra={"action": "schedule", "row_id": text},
            )

    def look(self, rows: DueRows, base: str) -> None:
        """Leave what no relay would ever come upon, some at a time.

        Raises:
            pymongo.errors.PyMongoError: MongoDB did not answer, or refuses every row.

        """
        odd = OddRows(self._database, base)
        now = self._database.command("hello")["localTime"].replace(tzinfo=UTC)
        looks = [odd.without_a_place(now), odd.without_a_date()]
        if time.monotonic() - self._looked_at >= LOOK_FOR_UNDATED_SECONDS:
            self._looked_at = time.monotonic()
            looks.append(odd.without_anything())
        for found in looks:
            for row in found:
                self.leave(rows, row.row_id, row.which, row.why)


def _is_marked(rows: DueRows, which: Mapping[str, Any], why: str) -> bool:
    # A validator of the plan's may refuse the reason, or the row be too large for it.
    with contextlib.suppress(mongo.WriteError):
        return rows.refuse(which, why)
    return False
