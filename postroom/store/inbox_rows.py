"""The inbox's rows: which handler of which subscription has handled which event."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pymongo import WriteConcern
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import errors, wire
from postroom.server_codes import DOCUMENT_VALIDATION, DUPLICATE_KEY
from postroom.store import expiry_index
from postroom.wire import InboxField

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

__all__ = ["InboxRows", "Repeated", "RowId", "codes_of", "identity"]

LONGEST_ID = 256


def identity(event_id: str) -> str:
    """Return the id under which an event is remembered and shown: its own, or a long one's hash."""
    if len(event_id) <= LONGEST_ID:
        return event_id
    return f"sha256:{hashlib.sha256(event_id.encode()).hexdigest()}"


class RowId(NamedTuple):
    """Which event, for which handler; rows of the inbox and of the begun ones have it as `_id`."""

    subscription: str
    handler: str
    event_id: str

    def stored(self) -> dict[str, str]:
        """Return it as it is stored; the order of the fields counts."""
        return {
            InboxField.SUBSCRIPTION: self.subscription,
            InboxField.HANDLER: self.handler,
            InboxField.EVENT_ID: identity(self.event_id),
        }


class Repeated(Exception):
    """One of several events was handled before; the transaction has to be given up."""


class InboxRows:
    """Remembers events in the transactions of their handlers. Thread-safe."""

    def __init__(self, database: Database[Any]) -> None:
        self._database = database
        self._rows = database[wire.INBOX]
        # A primary that was deposed and does not know it yet may hold rows that will be undone.
        self._lasting = self._rows.with_options(read_concern=ReadConcern("majority"))
        # Nobody waits for it: should it be lost, the event would have to come again to matter.
        self._unasked = self._rows.with_options(write_concern=WriteConcern(w=0))

    @property
    def database(self) -> str:
        """The name of their database."""
        return self._database.name

    def prepare(self, *, keep: timedelta) -> None:
        """Make the index by which rows expire, or change its time."""
        expiry_index.prepare(
            self._rows,
            InboxField.HANDLED_AT,
            name=wire.INBOX_EXPIRY_INDEX,
            seconds=int(keep.total_seconds()),
        )

    def remember(
        self, rows: Sequence[tuple[RowId, str]], session: ClientSession, *, owing: bool = False
    ) -> None:
        """Insert the rows of events, by id and name, within the session's transaction.

        They are `owing` where something is to be done after the commit.

        Raises:
            Repeated: one of them is there.
            ServiceUnavailable: the collection takes none, which is no event's fault.

        """
        now = datetime.now(UTC)
        mark = {InboxField.AFTER_COMMIT: True} if owing else {}
        documents = [
            {
                InboxField.ID: each.stored(),
                InboxField.NAME: name,
                InboxField.HANDLED_AT: now,
                **mark,
            }
            for each, name in rows
        ]
        # The command that insert_many() sends: PyMongo's way there takes a third of its time.
        insert = {"insert": wire.INBOX, "documents": documents}
        reply = self._database.command(insert, session=session)
        if faults := reply.get("writeErrors"):
            error = mongo.WriteError(faults[0].get("errmsg", ""), faults[0].get("code"), reply)
            if codes_of(error) == {DUPLICATE_KEY}:
                raise Repeated from error
            if error.code == DOCUMENT_VALIDATION:
                raise errors.ServiceUnavailable(
                    f"A validator of {wire.INBOX} in database {self._database.name!r} refuses its "
                    "rows (code 121): no event can be remembered, so none is handled; remove it"
                ) from error
            raise error

    def forget(self, ids: Iterable[RowId], session: ClientSession) -> None:
        """Take rows back within the session's transaction, which has inserted them."""
        stored = [each.stored() for each in ids]
        self._rows.delete_many({InboxField.ID: {"$in": stored}}, session=session)

    def known(self, ids: Iterable[RowId]) -> dict[str, bool]:
        """Return the event ids, as remembered, of those handled before, and which are owing.

        Only what a majority of the members has: it will never be undone.
        """
        found = self._lasting.find(
            {InboxField.ID: {"$in": [each.stored() for each in ids]}},
            {InboxField.ID: 1, InboxField.AFTER_COMMIT: 1},
        )
        return {
            row[InboxField.ID][InboxField.EVENT_ID]: InboxField.AFTER_COMMIT in row for row in found
        }

    def settle(self, ids: Iterable[RowId]) -> None:
        """Note that what was to be done after the commit is done."""
        self._unasked.update_many(
            {InboxField.ID: {"$in": [each.stored() for each in ids]}},
            {"$unset": {InboxField.AFTER_COMMIT: ""}},
        )


def codes_of(error: mongo.OperationFailure) -> set[int]:
    """Return the codes of an error, or of all that it collects; 0 stands for none."""
    faults = (error.details or {}).get("writeErrors", [])
    return {fault.get("code", 0) for fault in faults} or {error.code or 0}
