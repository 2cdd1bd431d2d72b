"""OutboxRecorder: what was published in a test, in which transaction, without any server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import bson

from postroom import wire
from postroom.errors import OutboxError
from postroom.inbox.handling.handlers import registry
from postroom.store.codec import SHOWING
from postroom.testing import handling, plan
from postroom.testing.clients import AsyncClient, Client
from postroom.testing.published import Kind, Published, described, known_kind, of_row
from postroom.testing.storage import Storage
from postroom.wire import ScheduledField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pymongo import AsyncMongoClient, MongoClient
    from pymongo.asynchronous.database import AsyncDatabase
    from pymongo.database import Database

    from postroom.inbox.handling.handlers import Registry
    from postroom.inbox.handling.outcome import Applied
    from postroom.testing.handling import Given
    from postroom.testing.storage import Documents, Transaction

__all__ = ["Delivered", "OutboxRecorder", "Scheduled"]

SUBSCRIPTION = "test"
# Handlers that publish what they handle would go on for ever.
MOST_DELIVERED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """An event that is due later; `schedule` is the name under which it can be found until then."""

    event: Published
    due_at: datetime
    schedule: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """An event that a handler was called with, or had handled before."""

    event: Published
    handler: str
    handled: bool


class _Databases:
    """What an application needs in the place of MongoDB."""

    def __init__(self, database: str = "test") -> None:
        self._storage = Storage()
        self._name = database
        self._delivered: set[str] = set()
        self._ahead = timedelta(0)

    @property
    def client(self) -> MongoClient[Any]:
        """What stands in for a MongoClient."""
        return cast("MongoClient[Any]", Client(self._storage))

    @property
    def async_client(self) -> AsyncMongoClient[Any]:
        """What stands in for an AsyncMongoClient."""
        return cast("AsyncMongoClient[Any]", AsyncClient(self._storage))

    @property
    def database(self) -> Database[Any]:
        """A database of the client."""
        return self.client[self._name]

    @property
    def async_database(self) -> AsyncDatabase[Any]:
        """The same database, for asyncio."""
        return self.async_client[self._name]

    def clear(self) -> None:
        """Forget all events and documents."""
        self._storage.clear()


class OutboxRecorder(_Databases):
    """Databases in memory, of which Outbox and AsyncOutbox are made as of any other.

    `Outbox(recorder.database)` is the real one: it refuses what it refuses in production, and its
    rows are in the transaction with what is written beside them. `client` and `async_client` stand
    in for MongoClient and AsyncMongoClient and show the same documents; what they do not have is
    refused by a sentence (NotFaked) and never guessed.
    """

    @property
    def events(self) -> list[Published]:
        """All events that were published and committed, in commit order, of whatever database."""
        return [*self._of("committed")]

    @property
    def rolled_back(self) -> list[Published]:
        """Those whose transaction was rolled back: nobody will ever get them."""
        return [*self._of("rolled back")]

    @property
    def scheduled(self) -> list[Scheduled]:
        """Those that wait in the recorder's database until they are due, the earliest first."""
        return [
            Scheduled(
                event=of_row(row, transaction=0, database=self._name),
                due_at=row[ScheduledField.DUE_AT].replace(tzinfo=UTC),
                schedule=row.get(ScheduledField.SCHEDULE),
            )
            for row in plan.waiting(self.database)
        ]

    def advance(self, by: timedelta = timedelta(0)) -> int:
        """Put the clock forward, and publish what is due then; return how many there were.

        Only of events that are due later; what publish() adds a deliver_in to stays the real time.
        """
        ahead = self._ahead + by
        now = datetime.now(UTC) + ahead  # which a clock beyond the calendar's end cannot be
        self._ahead = ahead
        return plan.fire(self.database, now.replace(tzinfo=None))

    def published(self, kind: Kind, /, **fields: Any) -> list[Published]:
        """Return the committed events of a class or name with these values in these fields.

        Raises:
            TypeError: the class has no such field.

        """
        known_kind(kind, fields)
        return [each for each in self.events if each.fits(kind, fields)]

    def assert_published(
        self, kind: Kind, /, *, times: int | None = None, **fields: Any
    ) -> Published:
        """Make sure that such an event was published and committed; return the first one.

        With `times` that there are so many. Fields called `times` are compared by published().

        Raises:
            AssertionError: it was not; the sentence names what was.
            TypeError: the class has no such field.

        """
        __tracebackhide__ = True
        found = self.published(kind, **fields)
        if not found or times not in (None, len(found)):
            was = f"was published {len(found)} times, not {times}" if found else "was not published"
            raise AssertionError(f"{described(kind, fields)} {was}. {self._told()}")
        return found[0]

    def assert_nothing_published(self, kind: Kind | None = None, /, **fields: Any) -> None:
        """Make sure that no event was published and committed, or no such event.

        Raises:
            AssertionError: one was; the sentence names it.

        """
        __tracebackhide__ = True
        found = self.events if kind is None else self.published(kind, **fields)
        if found:
            raise AssertionError(f"Something was published. {self._told()}")

    def handle(
        self,
        handler: str | Callable[..., Any],
        event: Given,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Applied:
        """Run a handler on one event, here and now, by the rules of the inbox.

        It gets the event as a consumer would, and a session of this recorder's, in whose
        transaction the inbox remembers the event: handled before, it is not called. What it does
        after its commit follows.

        Raises:
            ConfigurationError: the function is no registered handler.
            InvalidEvent: the data do not fit the class that it asks for.
            Exception: whatever it raised; nothing was written.

        """
        found = handling.handler_of(handler)
        one = handling.as_event(event, headers=headers or {})
        return handling.run(found, [one], self.database, subscription=SUBSCRIPTION)

    def deliver(self, *, to: Registry = registry) -> list[Delivered]:
        """Hand what was committed since the last time to all registered handlers that want it.

        In commit order, here and now; also what they publish. An event that fails ends it.

        Raises:
            OutboxError: handlers go on publishing what they handle.
            Exception: whatever a handler raised; what it has written is undone.

        """
        found: list[Delivered] = []
        while waiting := [each for each in self.events if each.id not in self._delivered]:
            for event in waiting:
                self._delivered.add(event.id)
                found += self._deliver(event, to)
            if len(found) > MOST_DELIVERED:
                raise OutboxError(f"Handlers have published more than {MOST_DELIVERED} events")
        return found

    def _deliver(self, event: Published, to: Registry) -> Iterator[Delivered]:
        for handler in to.handlers.values():
            subscription = handler.subscription or SUBSCRIPTION
            if handler.wants(event.name, subscription):
                done = handling.run(
                    handler, [event.event()], self.database, subscription=subscription
                )
                yield Delivered(event=event, handler=handler.name, handled=done.handled > 0)

    def _told(self) -> str:
        lines = [f"Published: {each}" for each in self.events]
        lines += [f"Rolled back: {each}" for each in self.rolled_back]
        lines += [f"Not committed yet: {each}" for each in self._of("open")]
        return "\n".join(lines) or "Nothing else was."

    def _of(self, state: str) -> Iterator[Published]:
        for transaction in self._storage.transactions():
            if transaction.state == state:
                yield from _rows(transaction)


def _rows(transaction: Transaction) -> Iterator[Published]:
    for place, changes in transaction.changes.items():
        if place.collection == wire.OUTBOX:
            before: Documents = transaction.snapshot.get(place, {})
            for key, document in changes.items():
                if document is not None and key not in before:
                    row = bson.decode(document, SHOWING)
                    yield of_row(row, transaction=transaction.number, database=place.database)
