"""Applying: a handler's effect, and the rows that remember its events, in one transaction."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from pymongo import ReadPreference, WriteConcern
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import errors
from postroom.inbox.handling.call import Stage
from postroom.inbox.handling.deferred import require_done
from postroom.inbox.handling.guard import Guard
from postroom.inbox.handling.outcome import Applied
from postroom.store.inbox_rows import Repeated, RowId, identity
from postroom.store.transactions import commit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        self._subscription = subscription
        self._rows = rows
        self._lifetime = lifetime
        self._turns = turns
        # Events of one id are one event.
        self._fresh = {identity(event.id): handler.prepared(event) for event in events}
        self._owing: dict[str, Event[Any]] = {}
        self._repeated = len(events) - len(self._fresh)
        self._handled = 0
        self.waited = False

    @property
    def applied(self) -> Applied:
        """What came of it."""
        return Applied(handled=self._handled, repeated=self._repeated, waited=self.waited)

    def transact(self, session: ClientSession, call: Call) -> None:
        """Run the handler on what it has not handled before, and commit.

        Raises:
            Exception: whatever the handler raised, and PyMongo's errors; nothing was written, or
                nobody knows.

        """
        while self._fresh:
            began = time.monotonic()
            try:
                self._try(session, call)
            except Repeated:
                session.abort_transaction()
                self._leave_out_repeated(call)
            except BaseException as error:
                if not session.has_ended and session.in_transaction:
                    with contextlib.suppress(mongo.PyMongoError):
                        session.abort_transaction()
                seconds = call.seconds_since(began)
                named = self._lifetime.over(error, handler=self._handler.name, seconds=seconds)
                if named is error:
                    raise
                raise named from error

    def afterwards(self, call: Call) -> None:
        """Do what the handler does after its commit, with every event that this is still due for.

        Raises:
            Exception: whatever it raised; it is due again when the event comes again.

        """
        if self._handler.after_commit is None or not self._owing:
            return
        call.enter(Stage.AFTER)
        events = list(self._owing.values())
        returned = self._handler.after_commit(events if self._handler.batched else events[0])
        require_done(returned, who=f"after_commit of {self._handler.name}")
        self._rows.settle(map(self._row_id, events))

    def _try(self, session: ClientSession, call: Call) -> None:
        call.enter(Stage.INBOX)
        session.start_transaction(
            read_concern=ReadConcern("snapshot"),
            write_concern=_majority(call),
            read_preference=ReadPreference.PRIMARY,
        )
        if self._turns is not None:
            self._turns.take(self._handler.name, session)
        events = list(self._fresh.values())
        owing = self._handler.after_commit is not None
        rows = [(self._row_id(event), event.name) for event in events]
        self._rows.remember(rows, session, owing=owing)
        call.enter(Stage.HANDLER)
        with Guard(session, self._handler.name):
            self._call(events, session)
        call.enter(Stage.COMMIT)
        commit(session, seconds=min(COMMIT_SECONDS, call.seconds_left))
        self._handled += len(events)
        if owing:
            self._owing.update(self._fresh)
        self._fresh = {}

    def _call(self, events: list[Event[Any]], session: ClientSession) -> None:
        argument = events if self._handler.batched else events[0]
        call: Callable[..., Any] = self._handler.function
        options = {"session": session} if self._handler.wants_session else {}
        require_done(call(argument, **options), who=f"The handler {self._handler.name}")

    def _leave_out_repeated(self, call: Call) -> None:
        for event_id, owing in self._known(call).items():
            event = self._fresh.pop(event_id)
            self._repeated += 1
            if owing:
                self._owing[event_id] = event

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

    def _row_id(self, event: Event[Any]) -> RowId:
        return RowId(subscription=self._subscription, handler=self._handler.name, event_id=event.id)


def _majority(call: Call) -> WriteConcern:
    seconds = max(1.0, min(MAJORITY_SECONDS, call.seconds_left))
    return WriteConcern("majority", wtimeout=round(seconds * 1000))
