"""Contract: what a handler has to bear, tried on real MongoDB: retried, killed, delivered twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom import errors, private_text
from postroom.inbox.handling.applying import Applying
from postroom.inbox.handling.call import Call
from postroom.inbox.handling.lifetime import Lifetime
from postroom.store.inbox_rows import InboxRows, identity
from postroom.testing.effect import Effect, difference
from postroom.testing.watching import watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pymongo.database import Database

    from postroom.events import Event
    from postroom.inbox.handling.handlers import Handler
    from postroom.testing.watching import Write

__all__ = ["Contract"]

OURS = "__"


class _Undo(errors.Retry):
    """The transaction is undone here, as where another one has written the same document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    """One run in a transaction: whether the handler was called, and what the transaction wrote."""

    called: bool
    effect: Effect


class Contract:
    """Tries a handler on one event, which has to take effect once; faults() says where it does not.

    First its transaction is undone behind its last line, as by a conflict, and tried again. Both
    times MongoDB is the same, so both have to write as many documents in each collection: one that
    remembers in memory that it saw the event writes less. Then the worker is killed, so to speak,
    between the commit and what follows it, and the event is delivered again. What a handler writes
    without its session outlives the first and is done twice.
    """

    def __init__(self, handler: Handler, database: Database[Any], *, subscription: str) -> None:
        self._handler = handler
        self._database = database
        self._subscription = subscription
        self._outside: list[Write] = []

    def faults(self, events: Sequence[Event[Any]]) -> list[str]:
        """Return a sentence for each thing that goes wrong; none where the effect is there once.

        Raises:
            ConfigurationError: it has handled the events before.
            Exception: whatever the handler raised at first.

        """
        before = self._state()
        first = self._run(events, undo=True)
        found = [*self._kept(before), *self._tried_again(events, first)]
        outside = dict.fromkeys(self._outside)
        return [*found, *(_outside(self._handler.name, write) for write in outside)]

    def _kept(self, before: dict[str, list[Any]]) -> Iterator[str]:
        if self._state() != before and not self._outside:
            yield (
                f"The handler {self._handler.name} has changed the database although its "
                "transaction was undone: by a client that was made before the test kit could "
                "watch it"
            )

    def _tried_again(self, events: Sequence[Event[Any]], first: _Try) -> Iterator[str]:
        name = self._handler.name
        try:
            retried = self._run(events, undo=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, it was none at first
            yield _fails(name, error)
            return
        if differs := difference(first.effect, retried.effect):
            yield _remembers(name, differs)
        once = self._state()
        again = self._run(events, undo=False, afterwards=True)
        if again.called:
            yield f"The handler {name} was called again for an event that it had handled"
        if self._handler.after_commit is None and self._state() != once:
            yield f"The handler {name} has changed the database when its event came again"

    def _run(self, events: Sequence[Event[Any]], *, undo: bool, afterwards: bool = False) -> _Try:
        """Run it in a transaction."""
        client = self._database.client
        applying = Applying(
            self._handler,
            events,
            subscription=self._subscription,
            rows=InboxRows(self._database),
            lifetime=Lifetime(None),
        )
        call = Call()
        call.begin()
        with client.start_session() as session:
            own = session.session_id
            with watch.on() as seen:
                try:
                    if undo:
                        self._undo(applying, events, session, call)
                    else:
                        applying.transact(session, call)
                finally:
                    self._outside += [each.write for each in seen if each.session_id != own]
        if afterwards:
            applying.aftermath.come(call)
        effect = sum((each.effect for each in seen if each.session_id == own), Effect())
        return _Try(called=applying.applied.handled > 0, effect=effect)

    def _undo(
        self, applying: Applying, events: Sequence[Event[Any]], session: Any, call: Call
    ) -> None:
        prepared = {identity(each.id): self._handler.prepared(each) for each in events}
        applying.open(session, call)
        fresh = [prepared[each] for each in applying.fresh]
        if not fresh:
            raise errors.ConfigurationError(
                f"The handler {self._handler.name} has handled event {events[0].id} before, and is "
                "not called with it again: try it on one that the test's database does not know"
            )
        try:
            applying.handle(self._handler.argument(fresh), session)
            applying.send(session, call)
        except BaseException as error:
            applying.undone(session, call, error)
            raise
        applying.undone(session, call, _Undo())

    def _state(self) -> dict[str, list[Any]]:
        names = self._database.list_collection_names()
        return {
            name: sorted(map(repr, self._database[name].find()))
            for name in names
            if not name.startswith(OURS)
        }


def _fails(name: str, error: Exception) -> str:
    return (
        f"The handler {name} fails when its transaction is tried again, and did not at first: "
        f"{private_text.described(error, everything=True)}. Does it meet what it did at "
        "first? That outlives a transaction that is undone where it was done outside of the session"
    )


def _remembers(name: str, differs: str) -> str:
    return (
        f"What a retried transaction of the handler {name} writes differs from what its first one "
        f"writes: {differs}: does the handler remember events outside of the session? What it "
        "remembers there outlives a transaction that is undone, and with it the effect is lost or "
        "another one; leave it to the inbox, or keep it in a document written with session=session"
    )


def _outside(name: str, write: Write) -> str:
    return (
        f"The handler {name} writes outside of its session: {write}. That stays where its "
        "transaction is undone, and is done again with each try; pass session=session, or do it in "
        "after_commit, by an id that makes the second time harmless"
    )
