"""The inbox: remembers which handler has handled which event, in the handler's own transaction."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING, Any

from pymongo import ReadPreference, WriteConcern
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom.inbox.call import Call, Stage
from postroom.inbox.orphans import Orphans
from postroom.inbox.outcome import Applied
from postroom.store.begun import Begun
from postroom.store.clients import require_fit_server
from postroom.store.commit import commit
from postroom.store.inbox_rows import InboxRows, Repeated, RowId, identity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from postroom.events import Event
    from postroom.inbox.handlers import Handler

__all__ = ["Inbox"]

logger = logging.getLogger(__name__)

# Two handlers that write the same document conflict for a moment only: tried again at once.
CONFLICT_TRIES = 6
COMMIT_SECONDS = 30.0


class Inbox:
    """Applies a handler to an event once for each subscription. Thread-safe.

    The row that remembers the event and the handler's writes are one transaction: both are there
    or neither. Rows expire after `keep`; an event that comes again later is handled again, so the
    topic must not keep events for longer.
    """

    def __init__(self, database: Database[Any], *, subscription: str, keep: timedelta) -> None:
        self._database = database
        self._subscription = subscription
        self._keep = keep
        self._rows = InboxRows(database)
        self._begun = Begun(database)
        self._orphans = Orphans(database.client)

    def prepare(self) -> None:
        """Make the index by which rows expire, or change its time; end what killed ones left.

        Raises:
            ServiceUnavailable: MongoDB is no replica set, and has no transactions.

        """
        require_fit_server(self._database.client)
        self._orphans.end()
        self._begun.prepare()
        self._rows.prepare(keep=self._keep)

    def apply(
        self, handler: Handler, events: Sequence[Event[dict[str, Any]]], call: Call | None = None
    ) -> Applied:
        """Run a handler on events, all in one transaction, unless it has handled them before.

        With a `call` it can be cut off from another thread.

        Raises:
            InvalidEvent: the data of an event do not fit what the handler asks for.
            Exception: whatever the handler raised, and PyMongo's errors; nothing was written.

        """
        call = call or Call()
        call.enter(Stage.PREPARING)
        prepared = [handler.prepared(event) for event in events]
        with self._database.client.start_session() as session:
            call.opened(session.session_id)
            for attempt in range(1, CONFLICT_TRIES + 1):
                try:
                    return self._once(handler, prepared, session, call)
                except mongo.PyMongoError as error:
                    conflict = error.has_error_label("TransientTransactionError")
                    # A server that is away conflicts with nobody, to the driver's label it does.
                    conflict = conflict and not isinstance(error, mongo.ConnectionFailure)
                    if not conflict or attempt == CONFLICT_TRIES or call.is_cut_off:
                        raise
                if attempt == CONFLICT_TRIES - 1:
                    self._orphans.end()
                time.sleep(random.uniform(0.5, 1.0) * 0.005 * 2**attempt)  # noqa: S311 - jitter
        raise AssertionError  # the loop returns or raises

    def begun(self, handler: Handler, events: Sequence[Event[Any]]) -> int:
        """Return how often one of several events has ended its worker so far."""
        return self._begun.times(self._row_id(handler, event) for event in events)

    def begin(self, handler: Handler, events: Sequence[Event[Any]]) -> int:
        """Note that events are begun; return how often one of them has ended its worker so far."""
        return max(self._begun.begin(self._row_id(handler, event)) for event in events)

    def end(self, handler: Handler, events: Sequence[Event[Any]], *, for_good: bool) -> None:
        """Note that events which were begun have come to an end, perhaps to be begun again."""
        self._begun.end((self._row_id(handler, event) for event in events), for_good=for_good)

    def cut_off(self, call: Call) -> None:
        """End the transaction of a call that hangs, so that it can never commit.

        Its rows are free at once for the next attempt; should the handler wake up, its writes fail.
        """
        session_id = call.cut_off()
        if session_id is None:
            return
        try:
            self._database.client.admin.command("killSessions", [session_id])
        except mongo.PyMongoError as error:
            logger.warning(
                "The transaction of a handler that hangs could not be ended (%s); MongoDB ends it "
                "after transactionLifetimeLimitSeconds, and the event waits for that",
                type(error).__name__,
            )

    def _once(
        self, handler: Handler, events: Sequence[Event[Any]], session: ClientSession, call: Call
    ) -> Applied:
        call.enter(Stage.INBOX)
        session.start_transaction(
            read_concern=ReadConcern("snapshot"),
            write_concern=WriteConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        try:
            rows = [(self._row_id(handler, event), event.name) for event in events]
            self._rows.remember(rows, session)
            call.enter(Stage.HANDLER)
            _call(handler, events, session)
            call.enter(Stage.COMMIT)
        except Repeated:
            session.abort_transaction()
            return self._leave_out_repeated(handler, events, session, call)
        except BaseException:
            if session.in_transaction:
                with contextlib.suppress(mongo.PyMongoError):
                    session.abort_transaction()
            raise
        commit(session, seconds=COMMIT_SECONDS)
        return Applied(handled=len(events), repeated=0)

    def _row_id(self, handler: Handler, event: Event[Any]) -> RowId:
        return RowId(subscription=self._subscription, handler=handler.name, event_id=event.id)

    def _leave_out_repeated(
        self, handler: Handler, events: Sequence[Event[Any]], session: ClientSession, call: Call
    ) -> Applied:
        ids = {identity(event.id): event for event in events}
        for known in self._rows.known(self._row_id(handler, event) for event in ids.values()):
            ids.pop(known, None)
        fresh = list(ids.values())
        repeated = len(events) - len(fresh)
        if not fresh:
            return Applied(handled=0, repeated=repeated)
        applied = self._once(handler, fresh, session, call)
        return Applied(handled=applied.handled, repeated=repeated + applied.repeated)


def _call(handler: Handler, events: Sequence[Event[Any]], session: ClientSession) -> None:
    argument = list(events) if handler.batched else events[0]
    call: Callable[..., Any] = handler.function
    if handler.wants_session:
        call(argument, session=session)
    else:
        call(argument)
