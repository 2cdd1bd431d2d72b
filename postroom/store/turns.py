"""Turns: jobs of a handler that write the same document go one after another, in all workers."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pymongo import WriteConcern
from pymongo import errors as mongo

from postroom import wire
from postroom.store.inbox_rows import RowId
from postroom.wire import InboxField

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession
    from pymongo.database import Database

__all__ = ["TurnTaken", "Turns"]

LOOK_SECONDS = 2.0
# Stands for all handlers that take turns.
ALL = ""
# A handler that met a conflict queues for so long, here and in the other workers.
MEMORY = timedelta(seconds=30)


class TurnTaken(Exception):
    """Another job of the handler has its turn; nothing was run."""


class Turns:
    """The turn of each handler: a row that its contenders write first in their transaction.

    Whoever has written it holds it until the transaction ends, however that ends: there is no
    lease, no clock and nothing to clean up, and a contender that is refused has run nothing. The
    row stands in the inbox under an empty event id, and never expires. Thread-safe: a lock holds
    what was seen of the other workers.
    """

    def __init__(self, database: Database[Any]) -> None:
        self._rows = database[wire.INBOX]
        self._unasked = self._rows.with_options(write_concern=WriteConcern(w=0))
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, bool]] = {}

    def take(self, handler: str, session: ClientSession) -> None:
        """Take a handler's turn for the session's transaction, and that of all if they take turns.

        Raises:
            TurnTaken: another has it; the transaction is lost.

        """
        turns = [handler, ALL] if self.are_taken(ALL) else [handler]
        try:
            for each in turns:
                self._rows.update_one(
                    _row(each), {"$inc": {InboxField.TURNS: 1}}, upsert=True, session=session
                )
        except mongo.OperationFailure as error:
            if not error.has_error_label("TransientTransactionError"):
                raise
            raise TurnTaken from error

    def call_to_queue(self, handler: str) -> None:
        """Have all workers take turns at a handler for a while; returns at once.

        Where they do already, another handler writes the same: then those handlers that take turns
        take them with each other.
        """
        wanted = ALL if self.are_taken(handler) else handler
        self._unasked.update_one(
            _row(wanted), {"$set": {InboxField.CONTENDED_AT: datetime.now(UTC)}}, upsert=True
        )

    def are_taken(self, handler: str) -> bool:
        """Say whether some worker has called to queue; looked up every other second."""
        now = time.monotonic()
        with self._lock:
            looked_at, found = self._seen.get(handler, (-LOOK_SECONDS, False))
            if now - looked_at < LOOK_SECONDS:
                return found
            # The others go by what was seen before, until it has been looked up.
            self._seen[handler] = now, found
        row = self._rows.find_one(_row(handler), {InboxField.CONTENDED_AT: 1}) or {}
        at = row.get(InboxField.CONTENDED_AT)
        found = at is not None and datetime.now(UTC) - at < MEMORY
        with self._lock:
            self._seen[handler] = now, found
        return found


def _row(handler: str) -> dict[str, Any]:
    return {InboxField.ID: RowId(subscription="", handler=handler, event_id="").stored()}
