"""Left rows: what stays in the plan though it is due, each with its reason, and harms no other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

from postroom import wire
from postroom.events import id_text
from postroom.reminders import Reminders
from postroom.store import server_time
from postroom.store.odd_rows import OddRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymongo.database import Database

    from postroom.store.due_row import Odd
    from postroom.store.due_rows import DueRows
    from postroom.store.values import OutboxPartition

__all__ = ["LeftRows"]

logger = logging.getLogger(__name__)

# Behind more than these, none of which takes a reason, others wait.
MOST_REMEMBERED = 10_000
# So that a query with all of them stays one that MongoDB takes.
LONGEST_ID = 1_000
# One by one; what comes in hundreds is marked together.
MOST_NAMED = 20
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

    def forget(self) -> None:
        """Have the unmarked ones tried again."""
        self.unmarked.clear()

    def leave(self, rows: DueRows, left: Sequence[Odd]) -> None:
        """Have rows left.

        Raises:
            pymongo.errors.PyMongoError: MongoDB did not answer, or refuses every row.

        """
        for row in left[:MOST_NAMED]:
            try:
                if rows.refuse(row):
                    self._say(row)
            except mongo.WriteError:
                self._remember([row])
                self._say(row)
        if others := left[MOST_NAMED:]:
            unmarked = rows.refuse_all(others)
            self._remember(unmarked)
            if len(unmarked) < len(others) or self._said.is_due("more"):
                logger.error(
                    "%d more scheduled events of outbox partition %r are left in %s",
                    len(others),
                    self._partition,
                    wire.SCHEDULED,
                    extra={"action": "schedule"},
                )

    def look(self, rows: DueRows, base: str) -> None:
        """Leave what no relay would ever come upon, some at a time.

        Raises:
            pymongo.errors.PyMongoError: MongoDB did not answer, or refuses every row.

        """
        odd = OddRows(self._database, base)
        now = server_time.now(self._database)
        for found in map(list, (odd.without_a_place(now), odd.without_a_date())):
            if found:
                self.leave(rows, found)

    def _remember(self, unmarked: Sequence[Odd]) -> None:
        ids = [row.row_id for row in unmarked if len(id_text(row.row_id).encode()) <= LONGEST_ID]
        self.unmarked = [*self.unmarked, *ids][:MOST_REMEMBERED]

    def _say(self, row: Odd) -> None:
        text = id_text(row.row_id)
        if self._said.is_due(text):
            logger.error(
                "The scheduled event %s of outbox partition %r is left in %s: %s. `outbox scheduled"
                " list` shows it; `outbox scheduled fire` has it tried again, or cancel it there",
                text,
                self._partition,
                wire.SCHEDULED,
                row.why,
                extra={"action": "schedule", "row_id": text},
            )
