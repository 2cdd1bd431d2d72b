"""Consumer: keeps one subscription connected, whatever happens to the broker or MongoDB."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

from postroom import broker, errors
from postroom.inbox.dead_letters import (
    DeadLetters,
    pattern_of,
    redrive_pattern,
    redrive_topic,
)
from postroom.inbox.dispatcher import Dispatcher, Failed, Received, Woken
from postroom.inbox.inbox import Applied, Inbox
from postroom.inbox.orphans import app_name
from postroom.inbox.status import Status
from postroom.store import clients

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pulsar

    from postroom.inbox.dispatcher import Runner
    from postroom.inbox.handlers import Registry
    from postroom.inbox.job import Job
    from postroom.settings import Settings

__all__ = ["Consumer"]

logger = logging.getLogger(__name__)

OPERATION_TIMEOUT = timedelta(seconds=10)
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 10.0
GOOD_CONNECTION_SECONDS = 30.0
RECEIVE_MILLISECONDS = 200
# Messages that the client's library may hold besides: it does not bound their size.
RECEIVER_QUEUE = 100


class Consumer:
    """Reads the topics of one subscription and has each event handled. One thread, run().

    Up to `most_submitted` jobs are with the runner, which may have fewer threads.

    The subscription is Key_Shared: several workers share it, and a key stays with one of them. Any
    error closes the connection; what was held and not acknowledged is delivered again, in order.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        subscription: str,
        topics: Sequence[str],
        runner: Runner,
        most_submitted: int,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._subscription = subscription
        self._topics = list(topics)
        self._runner = runner
        self._most_submitted = most_submitted
        self._dispatcher: Dispatcher | None = None
        self._stopping = threading.Event()
        self._mongo = clients.for_consumer(settings.mongodb_uri, name=app_name())
        self._inbox = Inbox(
            self._mongo[settings.mongodb_database],
            subscription=subscription,
            keep=timedelta(days=settings.inbox_days),
        )
        self.status = Status(subscription=subscription, topics=", ".join(self._topics))

    def run(self) -> None:
        """Consume until stop() is called."""
        backoff = FIRST_BACKOFF_SECONDS
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._connected()
            except Exception as error:  # noqa: BLE001 - any error ends the connection, none the loop
                if time.monotonic() - began > GOOD_CONNECTION_SECONDS:
                    backoff = FIRST_BACKOFF_SECONDS
                self._wait_after(error, backoff)
                backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
        self.status.state = "stopped"
        self._mongo.close()

    def stop(self) -> None:
        """Ask the consumer to start nothing new and end; safe from any thread."""
        self._stopping.set()
        if (dispatcher := self._dispatcher) is not None:
            dispatcher.post(Woken())

    def execute(self, job: Job) -> Applied:
        """Run a job in the calling thread; what the handler raises is passed on."""
        return job.run(self._inbox, self._settings)

    def cut_off(self, job: Job) -> None:
        """Make sure that a job which has run for too long can never commit."""
        self._inbox.cut_off(job.call)
        job.end(self._inbox)

    def _wait_after(self, error: Exception, seconds: float) -> None:
        if self._stopping.is_set():
            return
        known = isinstance(error, (errors.PostroomError, mongo.PyMongoError)) or (
            type(error).__module__.startswith(("pulsar", "_pulsar"))
        )
        self.status.state, self.status.reason = "waiting", self._sentence(error)
        logger.warning(
            "%s (again in %.1f s)",
            self.status.reason,
            seconds,
            exc_info=None if known else error,
            extra={"action": "consumer_reconnect", "subscription": self._subscription},
        )
        self._stopping.wait(seconds)

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, errors.PostroomError):
            return str(error)
        if isinstance(error, mongo.PyMongoError):
            where = broker.masked(self._settings.mongodb_uri)
            return f"MongoDB does not answer at {where} ({type(error).__name__}); it is tried again"
        if type(error).__module__.startswith(("pulsar", "_pulsar")):
            return str(broker.unreachable(self._settings.pulsar_url, error))
        return f"The consumer of {self._subscription!r} failed with {type(error).__name__}: {error}"

    def _connected(self) -> None:
        self.status.state = "connecting"
        self._inbox.prepare()
        with broker.connected(
            self._settings.pulsar_url, operation_timeout=OPERATION_TIMEOUT
        ) as client:
            dispatcher = self._dispatcher = self._made_for(client)
            feeds = self._feeds(client, dispatcher)
            logger.info(
                "Consuming %s as %r",
                self.status.topics,
                self._subscription,
                extra={"action": "consuming"},
            )
            self.status.state, self.status.reason = "consuming", ""
            try:
                while not self._stopping.is_set():
                    dispatcher.step()
            finally:
                self._close(dispatcher, feeds)

    def _made_for(self, client: pulsar.Client) -> Dispatcher:
        dead_letters = DeadLetters(client, self._settings, subscription=self._subscription)
        for topic in self._topics:
            if not topic.startswith("re:"):
                dead_letters.prepare(broker.canonical(topic))
        return Dispatcher(
            settings=self._settings,
            registry=self._registry,
            subscription=self._subscription,
            runner=self._runner,
            dead_letters=dead_letters,
            status=self.status,
            most_submitted=self._most_submitted,
        )

    def _feeds(self, client: pulsar.Client, dispatcher: Dispatcher) -> list[_Feed]:
        # Patterns cannot be subscribed to together with names, nor with each other.
        names: list[str] = []
        wanted: list[Any] = []
        for topic in self._topics:
            if topic.startswith("re:"):
                wanted.append(re.compile(pattern_of(topic)))
                wanted.append(re.compile(redrive_pattern(topic, self._subscription)))
            else:
                names += [broker.canonical(topic), redrive_topic(topic, self._subscription)]
        if names:
            wanted.append(names)
        feeds = [_Feed(self._subscribe(client, topics), dispatcher) for topics in wanted]
        for feed in feeds:
            feed.start()
        return feeds

    def _subscribe(self, client: pulsar.Client, topics: Any) -> pulsar.Consumer:
        import pulsar

        return client.subscribe(
            topics,
            self._subscription,
            consumer_type=pulsar.ConsumerType.KeyShared,
            consumer_name=f"{socket.gethostname()}-{os.getpid()}",
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=min(RECEIVER_QUEUE, self._settings.prefetch),
            max_total_receiver_queue_size_across_partitions=self._settings.prefetch,
        )

    def _close(self, dispatcher: Dispatcher, feeds: list[_Feed]) -> None:
        # Handlers that run finish and are acknowledged; only then is the rest handed back, since
        # another worker would otherwise get later events of a key that is still at work here.
        self.status.state = "draining"
        for feed in feeds:
            feed.stop()
        try:
            unfinished = dispatcher.drain(self._settings.shutdown_seconds)
        finally:
            for feed in feeds:
                feed.close()
        self.status.running = len(unfinished)
        if unfinished:
            logger.warning(
                "%d handlers did not finish within %g s; their events are delivered again",
                len(unfinished),
                self._settings.shutdown_seconds,
            )


class _Feed:
    """A thread that receives while the dispatcher has room."""

    def __init__(self, consumer: pulsar.Consumer, dispatcher: Dispatcher) -> None:
        self._consumer = consumer
        self._dispatcher = dispatcher
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="consumer-feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(RECEIVE_MILLISECONDS / 1000 * 5)
        broker.close(self._consumer)

    def _run(self) -> None:
        try:
            self._receive()
        except Exception as error:  # noqa: BLE001 - the dispatcher ends with it and says so
            if not self._stopping.is_set():
                self._dispatcher.post(Failed(error))

    def _receive(self) -> None:
        import pulsar

        while not self._stopping.is_set():
            if not self._dispatcher.has_room:
                self._stopping.wait(0.005)
                continue
            try:
                message = self._consumer.receive(timeout_millis=RECEIVE_MILLISECONDS)
            except pulsar.Timeout:
                continue
            size = len(message.data())
            self._dispatcher.announce(size)
            self._dispatcher.post(Received(self._consumer, message, size))
