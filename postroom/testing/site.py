"""OutboxSite: a test's own corner of the real services, and drain(), which empties it."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bson import ObjectId
from pymongo import AsyncMongoClient, MongoClient

from postroom import broker, wire
from postroom.access import pulsar as pulsar_access
from postroom.outbox import Outbox
from postroom.store import clients, plan_indexes
from postroom.store.server_watch import ServerWatch
from postroom.testing import watching
from postroom.testing.contract import Contract
from postroom.testing.draining import Draining
from postroom.testing.firing import fire_due
from postroom.testing.handling import as_event, handler_of
from postroom.testing.mail import Mail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pulsar
    from pymongo.database import Database

    from postroom.settings import Settings
    from postroom.testing.handling import Given
    from postroom.testing.report import Drained
    from postroom.testing.wired import Wiring

__all__ = ["OutboxSite", "SharedClients", "names_of", "sharing"]

OPERATION_TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedClients:
    """The clients that all tests of a process share."""

    mongodb: MongoClient[Any]
    handlers: MongoClient[Any]
    pulsar: pulsar.Client


@contextlib.contextmanager
def sharing(settings: Settings) -> Iterator[SharedClients]:
    """Open the clients for as long as tests run."""
    watching.register()
    access = pulsar_access.of(settings)
    uri = settings.mongodb_uri
    handlers = clients.for_consumer(uri, name="postroom-testing", watch=ServerWatch())
    with (
        broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as client,
        MongoClient[Any](uri, tz_aware=True) as mongodb,
        contextlib.closing(handlers),
    ):
        yield SharedClients(mongodb=mongodb, handlers=handlers, pulsar=client)


def names_of(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a corner that no other test has."""
    own = f"t{ObjectId()}"
    return {
        **given,
        "POSTROOM_MONGODB_DATABASE": own,
        "POSTROOM_TOPIC": f"public/default/{own}",
        "POSTROOM_MUTEX_TOPIC": f"public/default/{own}-mutex",
        "POSTROOM_SUBSCRIPTION": "test",
        "POSTROOM_PARTITIONS": "1",
    }


class OutboxSite:
    """A database and topics that no other test has. Of the thread that runs the test.

    `environment` are the variables that lead there, for processes that a test starts; this one has
    them too while the test runs, so that `Settings()` finds them.
    """

    def __init__(
        self,
        shared: SharedClients,
        settings: Settings,
        wiring: Wiring,
        environment: Mapping[str, str],
    ) -> None:
        self.settings = settings
        self.environment = dict(environment)
        self._shared = shared
        self._mail = Mail(shared.pulsar, wiring, settings)
        self._relayed: set[str] = set()
        self._ahead = timedelta(0)
        # As `outbox setup` does: made by a first scheduled event, it would fail what had written.
        plan_indexes.prepare(self.database)

    @property
    def database(self) -> Database[Any]:
        """The test's own database."""
        return self._shared.mongodb[self.settings.mongodb_database]

    @property
    def outbox(self) -> Outbox:
        """An outbox of it."""
        return Outbox(self.database)

    def async_client(self) -> AsyncMongoClient[Any]:
        """Return a client for the test's event loop, to be closed by `async with`."""
        return AsyncMongoClient(self.settings.mongodb_uri, tz_aware=True)

    def advance(self, by: timedelta) -> None:
        """Put the clock forward by which drain() finds what is due later; MongoDB's stays."""
        self._ahead += by

    def drain(self, *, seconds: float = 10.0) -> Drained:
        """Relay and consume all that waits, what handlers publish too, and return what happened.

        Rows go to the broker in the order of their ids, and come back to the registered handlers
        through the real inbox: once for an event, each in a transaction. An event that fails is
        tried again at once, as often as the handler says, and is a dead letter then, which is
        returned and stored nowhere. Handlers run one at a time, in a thread of their own.

        Raises:
            NotDrained: it was not over in time; the sentence says what it waits for.

        """
        draining = Draining(
            self._mail,
            database=self.database,
            handlers_database=self._shared.handlers[self.settings.mongodb_database],
            settings=self.settings,
            relayed=self._relayed,
            fire=functools.partial(fire_due, self.database, self._ahead),
        )
        return draining.within(seconds)

    def assert_contract(
        self,
        handler: str | Callable[..., Any],
        event: Given,
        *more: Given,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Make sure that a handler's effect is there once, whatever happens to it.

        It is called with the event (a batch: with all of them), its transaction is undone, it is
        tried again and commits, the worker is killed before it can acknowledge, and the event comes
        again. Both tries have to write as many documents in each collection, whatever is in them.
        What it needs in the database has to be there before.

        Raises:
            AssertionError: it has written outside of its session, or twice, or not the same when it
                was tried again, or failed then; each has a sentence.
            ConfigurationError: the function is no registered handler, or has handled it before.
            Exception: whatever it raised at first.

        """
        __tracebackhide__ = True
        found = handler_of(handler)
        database = self._shared.handlers[self.settings.mongodb_database]
        contract = Contract(found, database, subscription=self.settings.subscription)
        faults = contract.faults([as_event(e, headers=headers or {}) for e in (event, *more)])
        if faults:
            raise AssertionError("\n".join(faults))

    def waiting(self) -> int:
        """Count the rows of the outbox that drain() has not relayed yet."""
        rows = self.database[wire.OUTBOX].find({}, {"_id": 1})
        return sum(str(row["_id"]) not in self._relayed for row in rows)

    def close(self) -> None:
        """Remove what the test has left."""
        self._mail.close()
        self._shared.mongodb.drop_database(self.settings.mongodb_database)
