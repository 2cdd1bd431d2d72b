"""The inbox: remembers which handler has handled which event, in the handler's own transaction."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo import errors as mongo

from postroom.inbox.handling.applying import Applying
from postroom.inbox.handling.call import Call, Stage
from postroom.inbox.handling.lifetime import Lifetime
from postroom.inbox.handling.orphans import Orphans
from postroom.inbox.handling.tries import Tries
from postroom.inbox.inspection import Inspection
from postroom.store.begun import Begun
from postroom.store.inbox_rows import InboxRows, RowId
from postroom.store.server_watch import ServerWatch
from postroom.store.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from postroom.events import Event
    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.handling.outcome import Applied
    from postroom.store.begun import Ends

__all__ = ["Inbox"]

logger = logging.getLogger(__name__)

CUT_OFF_SECONDS = 5.0


class Inbox:
    """Applies a handler to an event once for each subscription. Thread-safe.

    The row that remembers the event and the handler's writes are one transaction: both are there
    or neither. Rows expire after `keep`; an event that comes again later is handled again, so the
    topic must not keep events for longer.
    """

    def __init__(
        self,
        database: Database[Any],
        *,
        subscription: str,
        keep: timedelta,
        owner: str = "",
        watch: ServerWatch | None = None,
    ) -> None:
        self._database = database
        self._inspection = Inspection(database)
        self._watch = watch or ServerWatch()
        # Replaced as a whole by prepare(), before the connection has a job; one that an earlier
        # connection has left behind goes on with what it had.
        self.lifetime = Lifetime(None)
        self._subscription = subscription
        self._keep = keep
        self._rows = InboxRows(database)
        self._turns = Turns(database)
        self._begun = Begun(database, owner=owner)
        self._orphans = Orphans(database.client)

    def prepare(self) -> None:
        """Make the index by which rows expire, or change its time; end what killed ones left.

        Raises:
            ServiceUnavailable: what a consumer looks at before it connects is not as it must be.
            pymongo.errors.PyMongoError: it does not answer.

        """
        self._inspection.before_connecting()
        self.lifetime = Lifetime.of(self._database.client)
        self._orphans.end()
        self._begun.prepare()
        self._rows.prepare(keep=self._keep)

    def apply(
        self,
        handler: Handler,
        events: Sequence[Event[dict[str, Any]]],
        call: Call | None = None,
        *,
        contends: bool = False,
    ) -> Applied:
        """Run a handler on events, all in one transaction, unless it has handled them before.

        What it does after its commit follows, also where that is due from an earlier time. With a
        `call` it can be cut off from another thread. Where it `contends`, or jobs in other workers
        do, the handler's transactions take turns.

        Raises:
            InvalidEvent: the data of an event do not fit what the handler asks for.
            TransactionTouched: the handler has ended the transaction, or begun another one.
            TransactionTooLong: MongoDB has ended it for its length.
            TransactionEnded: MongoDB has ended it for an error that the handler has caught.
            NotItsTurn: others had their turn meanwhile; the handler was not called.
            Exception: whatever the handler raised, and PyMongo's errors; nothing was written. What
                is raised after the commit (`call.stage` says so) has left the effect there.

        """
        call = call or Call()
        call.enter(Stage.INBOX)
        in_turns = contends or self._turns.are_taken(handler.name)
        applying = self._applying(handler, events, in_turns=in_turns)
        tries = Tries(applying, handler.name, self._database.client, orphans=self._orphans)
        if in_turns:
            tries.in_turn(self._turns, call)
        else:
            tries.at_once(call)
        applying.aftermath.come(call)
        return applying.applied

    @contextlib.contextmanager
    def sharing(
        self, handler: Handler, events: Sequence[Event[dict[str, Any]]], call: Call
    ) -> Iterator[tuple[Applying, ClientSession]]:
        """Lend one transaction for events that a handler is called with one after another.

        Whoever borrows it opens and commits it; what is not committed is undone.
        """
        applying = self._applying(handler, events, in_turns=self._turns.are_taken(handler.name))
        with self._database.client.start_session() as session:
            call.opened(session.session_id)
            yield applying, session

    def _applying(
        self, handler: Handler, events: Sequence[Event[dict[str, Any]]], *, in_turns: bool
    ) -> Applying:
        return Applying(
            handler,
            events,
            subscription=self._subscription,
            rows=self._rows,
            lifetime=self.lifetime,
            turns=self._turns if in_turns else None,
        )

    def has_lost_a_server(self, *, since: float) -> bool:
        """Say whether our own client has lost sight of a server of ours since a monotonic time."""
        return self._watch.has_lost_one(self._database.client, since=since)

    def begin(self, handler: Handler, events: Sequence[Event[Any]]) -> bool:
        """Note that events are begun, unless one is a suspect; say whether one is.

        A suspect was begun by a worker that ended, for as long as nobody knows by whose hand.
        """
        rows = [self._row_id(handler, event) for event in events]
        if len(rows) > 1 and self._begun.is_begun(rows):
            return True
        begun = [self._begun.begin(row) for row in rows]
        return any(begun)

    def begin_together(self, handler: Handler, events: Sequence[Event[Any]]) -> frozenset[str]:
        """Note that events are begun, unless one is a suspect; return the ids of those that are."""
        return self._begun.begin_together([self._row_id(handler, event) for event in events])

    def begin_alone(self, handler: Handler, event: Event[Any]) -> Ends:
        """Note that a suspect is begun, alone; return how many workers ended with it so far."""
        return self._begun.begin_alone(self._row_id(handler, event))

    def tell(self, handler: Handler, events: Sequence[Event[Any]]) -> None:
        """Say that the handler ends this worker with these events."""
        self._begun.tell(self._row_id(handler, event) for event in events)

    def end(self, handler: Handler, events: Sequence[Event[Any]], *, for_good: bool) -> None:
        """Note that events which were begun have come to an end, perhaps to be begun again."""
        self._begun.end((self._row_id(handler, event) for event in events), for_good=for_good)

    def cut_off(self, call: Call) -> bool:
        """End the transaction of a call that hangs, so that it can never commit.

        Its rows are free at once for the next attempt; should the handler wake up, its writes fail.
        Says whether MongoDB has answered.
        """
        session_id = call.cut_off()
        admin = self._database.client.admin
        try:
            with pymongo.timeout(CUT_OFF_SECONDS):
                if session_id is None:
                    admin.command("ping")
                else:
                    admin.command("killSessions", [session_id])
        except mongo.PyMongoError as error:
            logger.warning(
                "The transaction of a handler that hangs could not be ended (%s); MongoDB ends it "
                "after transactionLifetimeLimitSeconds, and the event waits for that",
                type(error).__name__,
            )
            return False
        return True

    def _row_id(self, handler: Handler, event: Event[Any]) -> RowId:
        return RowId(subscription=self._subscription, handler=handler.name, event_id=event.id)
