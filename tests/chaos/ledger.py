"""Ledger: the truth about an outbox, which is MongoDB's own change stream, read as it comes."""

from __future__ import annotations

from typing import Any

from tests.chaos.accounts import Accounts, Committed
from tests.chaos.tail import ChangeTail
from tests.chaos.writers import fate_of

__all__ = ["Ledger"]

OUTBOX = "__outboxMessages"
QUARANTINE = "__outboxQuarantine"


class Ledger:
    """Follows an outbox and its quarantine; `rows` are the outbox's inserts in commit order."""

    def __init__(self, uri: str, database: str) -> None:
        self.database = database
        self.rows: list[Committed] = []
        self.accounts = Accounts(self.mark)
        self._tail = ChangeTail(uri, database, [OUTBOX, QUARANTINE], self._take)

    def require_sound(self) -> None:
        """Raise where the run proves nothing, since the ledger itself lost history."""
        self._tail.require_sound()

    def mark(self) -> int:
        """Return how many events have been committed so far, once all of them are here."""
        self._tail.catch_up()
        return len(self.rows)

    def quarantined(self) -> list[str]:
        """Return the ids of all rows that were set aside."""
        return [str(row["_id"]) for row in self._tail.database[QUARANTINE].find({}, {"_id": 1})]

    def close(self) -> None:
        """Read no further."""
        self._tail.close()

    def _take(self, collection: str, row: dict[str, Any]) -> None:
        if collection == QUARANTINE:
            # What waits for a topic has not arrived: it goes there by itself.
            if row.get("topic") is None:
                self.accounts.arrived([str(row["_id"])])
        else:
            event = Committed(
                str(row["_id"]),
                *fate_of(row),
                key=row.get("key"),
                partition=row["partitionKey"],
            )
            self.rows.append(event)
            self.accounts.committed(event)
