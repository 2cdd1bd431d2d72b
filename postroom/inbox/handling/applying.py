"""Applying: a handler's effect, and the rows that remember its events, in one transaction."""

from __future__ import annotations

import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any

from pymongo import ReadPreference, WriteConcern
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import errors
from postroom.inbox.handling.aftermath import Aftermath
from postroom.inbox.handling.call import Stage
from postroom.inbox.handling.guard import Guard, is_ended, watched
from postroom.inbox.handling.outcome import Applied
from postroom.inbox.handling.writes import ReturnedWrites
from postroom.store.inbox_rows import Repeated, RowId, codes_of, identity
from postroom.store.transactions import commit

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pymongo.client_session import ClientSession

    from postroom.events import Event
    from postroom.inbox.handling.call import Call
    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.handling.lifetime import Lifetime
    from postroom.store.inbox_rows import InboxRows
    from postroom.store.turns import Turns

__all__ = ["Applying"]

COMMIT_SECONDS = 30.0
# A majority that stands still is asked again, so that the thread comes back in time.
MAJORITY_SECONDS = 10.0
# For a row to reach a majority of the members.
DECISION_SECONDS = 5.0
PAUSE_SECONDS = 0.05
SNAPSHOT = ReadConcern("snapshot")
NOTHING_YET = Applied(handled=0, repeated=0)
# BadValue, KeyTooLong, BSONObjectTooLarge: of an event whose name is too long.
OF_A_ROW = frozenset({2, 17280, 10334})


class Applying:
    """One job's way through the inbox; of the thread that runs it alone.

    What is found to have been handled before stays so over further tries. With `turns` it waits
    for the handler's turn.
    """

    def __init__(
        self,
        handler: Handler,
        events: Sequence[Event[dict[str, Any]]],
        *,
        subscription: str,
        rows: InboxRows,
        lifetime: Lifetime,
        turns: Turns | None = None,
    ) -> None:
        self._handler = handler
        self._rows = rows
        self._lifetime = lifetime
        self._turns = turns
        # No method: job and aftermath would hold each other, until Python's collector comes by.
        self._row_id = functools.partial(_row_id, subscription, handler.name)
        # Events of one id are one event. They are as they came: a handler gets its own.
        self._fresh: dict[str, Event[Any]] = {identity(event.id): event for event in events}
        self.aftermath = Aftermath(handler, rows, row_id=self._row_id)
        self.writes = ReturnedWrites(handler.name, rows.database)
        self._began = 0.0
        # What came of it so far.
        self.applied = NOTHING_YET.more(repeated=len(events) - len(self._fresh))

    @property
    def fresh(self) -> Collection[str]:
        """The ids, as remembered, of the events that are to be handled."""
        return self._fresh.keys()

    def transact(self, session: ClientSession, call: Call) -> None:
        """Run the handler on what it has not handled before, and commit.

        It gets the events as they came, and as no earlier try has left them.

        Raises:
            InvalidEvent: the data of one do not fit.
            Exception: whatever the handler raised, and PyMongo's errors; nothing was written, or
                nobody knows.

        """
        guard = None
        try:
            call.enter(Stage.PREPARING)
            prepared = {key: self._handler.prepared(each) for key, each in self._fresh.items()}
            self.open(session, call)
            if self._fresh:
                call.enter(Stage.HANDLER)
                events = [prepared[each] for each in self._fresh]
                guard = self.handle(self._handler.argument(events), session)
                self.commit(session, call)
        except BaseException as error:
            named = self.undone(session, call, error)
            if named is error and is_ended(error) and guard is not None:
                named = guard.ended or error
            if named is error:
                raise
            raise named from error

    def open(self, session: ClientSession, call: Call) -> None:
        """Begin the transaction with the rows of all events that have none; none where all have.

        Raises:
            TurnTaken: others of the handler have their turn.
            Exception: PyMongo's errors, and what `call` raises.

        """
        while self._fresh:
            call.enter(Stage.INBOX)
            self._began = time.monotonic()
            watched(session).start_transaction(
                read_concern=SNAPSHOT,
                write_concern=_majority(call),
                read_preference=ReadPreference.PRIMARY,
            )
            try:
                self._remember(session)
            except Repeated:
                session.abort_transaction()
                self._leave_out_repeated(call)
            else:
                return

    def commit(self, session: ClientSession, call: Call, *, less: Collection[str] = ()) -> None:
        """Commit what the handler has done and returned; `less` are events that it has not had.

        Raises:
            Exception: PyMongo's errors, and what `call` raises.

        """
        self.send(session, call)
        if less:
            call.enter(Stage.INBOX)
            self._rows.forget((self._row_id(self._fresh.pop(each)) for each in less), session)
        call.enter(Stage.COMMIT)
        commit(session, seconds=call.within(COMMIT_SECONDS))
        _let_go(session, call)
        self.applied = self.applied.more(handled=len(self._fresh))
        if self._handler.after_commit is not None:
            self.aftermath.owe(self._fresh)
        self._fresh = {}

    def undone(self, session: ClientSession, call: Call, error: BaseException) -> BaseException:
        """Undo what was done, and return the error by its right name."""
        if not session.has_ended and session.in_transaction:
            with contextlib.suppress(mongo.PyMongoError):
                session.abort_transaction()
        _let_go(session, call)
        self.writes.forget()
        seconds = call.seconds_since(self._began)
        return self._lifetime.over(error, handler=self._handler.name, seconds=seconds)

    def _remember(self, session: ClientSession) -> None:
        rows = [(self._row_id(event), event.name) for event in self._fresh.values()]
        try:
            if self._turns is not None:
                self._turns.take(self._handler.name, session)
            self._rows.remember(rows, session, owing=self._handler.after_commit is not None)
        except mongo.OperationFailure as error:
            if error.has_error_label("TransientTransactionError") or codes_of(error) & OF_A_ROW:
                raise
            # No event's fault, and no attempt: all would end as dead letters.
            raise errors.ServiceUnavailable(
                f"MongoDB does not take rows of the inbox (code {min(codes_of(error))}); the event "
                "is tried again"
            ) from error

    def handle(self, argument: Any, session: ClientSession, *, turn: int = 0) -> Guard:
        """Call the handler with an event, or the list of them, as it wants it.

        The writes that it returns wait to be sent, with the `turn` of the event in its group.
        Returns what has guarded the session.
        """
        options = {"session": session} if self._handler.wants_session else {}
        with Guard(session, self._handler.name) as guard:
            returned = self._handler.function(argument, **options)
        if returned is not None:
            self.writes.take(returned, turn=turn)
        return guard

    def send(self, session: ClientSession, call: Call) -> None:
        """Write what the handler has returned so far.

        Raises:
            WriteRefused: one of these writes cannot be.
            Exception: PyMongo's errors, and what `call` raises.

        """
        if self.writes:
            call.enter(Stage.WRITES)
            self.writes.send(session)

    def _leave_out_repeated(self, call: Call) -> None:
        for event_id, owing in self._known(call).items():
            event = self._fresh.pop(event_id)
            self.applied = self.applied.more(repeated=1)
            if owing:
                self.aftermath.owe({event_id: event})

    def _known(self, call: Call) -> dict[str, bool]:
        end = time.monotonic() + DECISION_SECONDS
        while not (found := self._rows.known(map(self._row_id, self._fresh.values()))):
            if time.monotonic() > end:
                raise errors.ServiceUnavailable(
                    f"MongoDB has a row that says {self._handler.name} has handled an event, but a "
                    "majority of its members has not confirmed it; the event is tried again"
                )
            call.enter(Stage.INBOX)
            time.sleep(PAUSE_SECONDS)
        return found


def _row_id(subscription: str, handler: str, event: Event[Any]) -> RowId:
    return RowId(subscription=subscription, handler=handler, event_id=event.id)


def _let_go(session: ClientSession, call: Call) -> None:
    """End a session: a thread that the handler has left behind must write nothing with it.

    The server gives it to another one, whom a call that is cut off has nothing to do with.
    """
    session.end_session()
    call.opened(None)


def _majority(call: Call) -> WriteConcern:
    return _within(round(max(1.0, call.within(MAJORITY_SECONDS)) * 1000))


@functools.lru_cache(maxsize=64)
def _within(milliseconds: int) -> WriteConcern:
    # Made once for most transactions: PyMongo's checks of it take as long as a command's encoding.
    return WriteConcern("majority", wtimeout=milliseconds)
