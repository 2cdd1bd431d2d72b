"""Consumer: keeps one subscription connected, whatever happens to the broker or MongoDB."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from postroom import broker
from postroom.access import pulsar as pulsar_access
from postroom.inbox.connection import Connection, Consumption
from postroom.inbox.facts import StateEntered, Teller
from postroom.inbox.handling import last_words
from postroom.inbox.handling.execution import execute, forget
from postroom.inbox.handling.inbox import Inbox
from postroom.inbox.handling.orphans import app_name
from postroom.inbox.handling.repertoire import Repertoire
from postroom.inbox.handling.sharing import Sharing
from postroom.inbox.status import Status
from postroom.observation import Observer
from postroom.sentences import Sentences
from postroom.store import clients
from postroom.store.server_watch import ServerWatch
from postroom.supervision import Backoff, Supervisor

if TYPE_CHECKING:
    from postroom.inbox.handling.job import Job
    from postroom.inbox.handling.outcome import Outcome

__all__ = ["Consumer", "Consumption"]

OPERATION_TIMEOUT = timedelta(seconds=10)


class Consumer:
    """Reads the topics of one subscription and has each event handled.

    One thread, run(), in which sharing() is called as well; execute() is called in handlers'
    threads, cut_off() in one of its own, stop() from any.

    Where the subscription is Key_Shared several workers share it, and a key stays with one of them;
    where it is Failover one worker at a time reads a topic, or a topic partition. Any error closes
    the connection; what was held and not acknowledged is delivered again, in order.
    """

    def __init__(self, consumption: Consumption) -> None:
        settings = consumption.settings
        self._consumption = consumption
        self._settings = settings
        self._connection: Connection | None = None
        self._stopping = threading.Event()
        watch, name = ServerWatch(), app_name()
        self._mongo = clients.for_consumer(settings.mongodb_uri, name=name, watch=watch)
        self._mongo.is_lent = True
        self._inbox = Inbox(
            self._mongo[settings.mongodb_database],
            subscription=consumption.subscription,
            keep=timedelta(days=settings.inbox_days),
            owner=name,
            watch=watch,
        )
        self._repertoire = Repertoire(
            self._mongo[settings.mongodb_database], consumption.registry, consumption.subscription
        )
        self.status = Status(
            subscription=consumption.subscription, topics=", ".join(consumption.topics)
        )
        self.observer = Observer(self.status.hear)
        self._tell = Teller(self.observer, consumption.subscription)

    def run(self) -> None:
        """Consume until stop() is called.

        Raises:
            ConfigurationError: the consumer cannot work as it is set up.

        """
        last_words.install()
        subscription = self._consumption.subscription
        sentences = Sentences(
            mongodb_uri=self._settings.mongodb_uri,
            pulsar_url=self._settings.pulsar_url,
            next_step=f"the consumer of {subscription!r} connects anew",
        )
        try:
            Supervisor(
                self._connect,
                stopping=self._stopping,
                sentence=sentences.of,
                waiting=self._wait,
                backoff=Backoff(first_seconds=0.5),
                extra={"action": "consumer_reconnect", "subscription": subscription},
            ).supervise()
        finally:
            self._tell(StateEntered, state="stopped")
            self._repertoire.end()
            self._mongo.is_lent = False
            self._mongo.close()

    def stop(self) -> None:
        """Ask the consumer to start nothing new and end; safe from any thread."""
        self._stopping.set()
        if (connection := self._connection) is not None:
            connection.wake()

    def execute(self, job: Job) -> tuple[Outcome, BaseException | None]:
        """Run a job in the calling thread; return what came of it, and why where it failed."""
        return execute(job, self._inbox, self._settings)

    def sharing(self, job: Job) -> Sharing:
        """Return what runs a group of jobs in one transaction."""
        return Sharing(job, self._inbox, self._settings)

    def cut_off(self, job: Job) -> bool:
        """Make sure that a job which has run for too long never commits; say if MongoDB answers."""
        answered = self._inbox.cut_off(job.call)
        if answered:
            forget(job, self._inbox, for_good=False)
        return answered

    def _wait(self, sentence: str) -> None:
        self._tell(StateEntered, state="waiting", reason=sentence)

    def _connect(self) -> None:
        self._tell(StateEntered, state="connecting")
        self._inbox.prepare()
        self._repertoire.begin()
        self._inbox.lifetime.check(
            self._consumption.registry.handlers.values(),
            default_seconds=self._settings.handler_timeout_seconds,
        )
        access = pulsar_access.of(self._settings)
        with broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as client:
            self._connection = Connection(
                client, self._consumption, repertoire=self._repertoire, tell=self._tell
            )
            self._connection.run(self._stopping)
