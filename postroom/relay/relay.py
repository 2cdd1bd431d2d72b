"""The relay: stands by for the mutex, relays a term, and begins again whatever happens."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import threading
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from postroom import broker, errors
from postroom.observation import Observer
from postroom.relay import facts
from postroom.relay.lane import LaneOptions
from postroom.relay.mutex import PulsarMutex
from postroom.relay.origin import Origin
from postroom.relay.retention import Retention
from postroom.relay.standing import Standing
from postroom.relay.state import State
from postroom.relay.status import Status
from postroom.relay.term import Term, TermOptions
from postroom.sentences import Sentences
from postroom.store import clients
from postroom.store.checkpoints import CheckpointStore
from postroom.store.outbox_rows import OutboxRows
from postroom.store.quarantine import Quarantine
from postroom.store.values import DEFAULT_PARTITION, OutboxPartition
from postroom.supervision import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulsar
    from pymongo.database import Database

    from postroom.routing import Routing
    from postroom.settings import Settings

__all__ = ["Relay"]

logger = logging.getLogger(__name__)

# Longer than the five seconds a broker takes to see that a frozen holder of the mutex is gone.
OPERATION_TIMEOUT = timedelta(seconds=10)


class Relay:
    """Relays one partition of the outbox whenever it holds the mutex. One thread, run().

    Standby -> opening -> relaying -> stopping. Any error ends a term: everything that it opened is
    closed, the mutex with it, and after a wait the relay stands by again. What no wait can mend (a
    broker that cannot do what POSTROOM_DELIVERY demands) ends run() with ConfigurationError.
    """

    def __init__(
        self,
        settings: Settings,
        routing: Routing,
        *,
        partition: str | None = None,
        subscriptions: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings = settings
        self._routing = routing
        self._partition = OutboxPartition(partition or settings.partition)
        self._subscriptions = subscriptions or {}
        self._stopping = threading.Event()
        self._term: Term | None = None
        self._abilities: broker.Abilities | None = None
        self._largest = settings.max_message_bytes
        owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._sentences = Sentences(
            mongodb_uri=settings.mongodb_uri,
            pulsar_url=settings.pulsar_url,
            next_step="a new term begins",
        )
        self.status = Status(partition=self._partition, owner=owner)
        self.observer = Observer(self.status.hear)
        self._standing = Standing(self.observer, partition=self._partition)

    def run(self) -> None:
        """Relay until stop() is called.

        Raises:
            ConfigurationError: the relay cannot work with this broker as it is set up.

        """
        supervisor = Supervisor(
            self._stand_and_tell,
            stopping=self._stopping,
            sentence=self._sentences.of,
            waiting=functools.partial(self._standing.enter, State.WAITING),
            extra={"action": "term_ended", "partition": self._partition},
        )
        try:
            supervisor.supervise()
        except errors.ConfigurationError:
            self._standing.enter(State.STOPPED, "configuration")
            raise
        self._standing.enter(State.STOPPED)

    def stop(self) -> None:
        """Ask the relay to finish what is in flight and end; safe from any thread and signals."""
        self._stopping.set()
        term = self._term
        if term is not None:
            term.stop()

    # --- one candidacy ------------------------------------------------------------------------

    def _stand_and_tell(self) -> None:
        try:
            self._stand_for_office()
        except Exception as error:
            self.observer.tell(
                facts.TermEnded(
                    partition=self._partition,
                    reason=self._sentences.of(error),
                    error=type(error).__name__,
                    transient=errors.is_transient(error),
                )
            )
            raise

    def _stand_for_office(self) -> None:
        self._standing.enter(State.STANDBY)
        settings = self._settings
        with (
            clients.for_relay(settings.mongodb_uri) as mongodb,
            clients.for_change_stream(settings.mongodb_uri) as patient,
            broker.connected(settings.pulsar_url, operation_timeout=OPERATION_TIMEOUT) as client,
        ):
            database, reading = (c[settings.mongodb_database] for c in (mongodb, patient))
            clients.require_fit_server(mongodb)
            self._probe(client)
            mutex = PulsarMutex(
                client,
                broker.canonical(self._mutex_topic()),
                owner=self.status.owner,
                properties={"partition": self._partition, "host": socket.gethostname()},
                retry=timedelta(seconds=settings.mutex_retry_seconds),
            )
            try:
                if mutex.acquire(self._stopping, waiting=self._standing_by):
                    self._hold_office(database, reading, client, mutex)
            except errors.TooLarge as error:
                self._largest = min(self._largest, error.size - 1)
                raise
            finally:
                mutex.release()

    def _mutex_topic(self) -> str:
        # By the partition alone: relays of one partition must meet on one topic, however each of
        # them came to know which partition it is for.
        topic = self._settings.mutex_topic
        return topic if self._partition == DEFAULT_PARTITION else f"{topic}-{self._partition}"

    def _standing_by(self, reason: str) -> None:
        self._standing.enter(State.STANDBY, reason)

    def _probe(self, client: pulsar.Client) -> None:
        if self._abilities is not None:
            return
        import pulsar

        try:
            for topic in self._routing.topics:
                # One that cannot even be asked after is looked at when its lane is opened.
                with contextlib.suppress(pulsar.TopicNotFound, pulsar.AuthorizationError):
                    broker.require_unpartitioned(client, topic)
            found = broker.probe(client, self._routing.topics)
        except (pulsar.Timeout, pulsar.ConnectError) as error:
            raise broker.unreachable(self._settings.pulsar_url, error) from error
        if self._settings.delivery == "exactly_once":
            self._require_exactly_once(found)
        elif lacking := _lacking(found):
            logger.warning(
                "The broker lacks %s: every event still arrives, in order, but a frozen relay that "
                "wakes up or a lost connection may send some twice. Deduplication is turned on for "
                "the namespace (pulsar-admin namespaces set-deduplication -e); fencing comes with "
                "Apache Pulsar 2.8 and later",
                lacking,
                extra={"action": "probe"},
            )
        self._abilities = found

    def _require_exactly_once(self, found: broker.Abilities) -> None:
        if lacking := _lacking(found):
            raise errors.ConfigurationError(
                f"POSTROOM_DELIVERY is exactly_once, but the broker at "
                f"{broker.masked(self._settings.pulsar_url)} lacks {lacking}. Nothing is relayed; "
                "turn it on, or choose best_available"
            )
        if self._routing.has_shared:
            raise errors.ConfigurationError(
                "POSTROOM_DELIVERY is exactly_once, but install(shared=…) names topics with other "
                "producers, which cannot be fenced. Nothing is relayed; leave them out, or choose "
                "best_available"
            )

    def _hold_office(
        self,
        database: Database[Any],
        reading: Database[Any],
        client: pulsar.Client,
        mutex: PulsarMutex,
    ) -> None:
        self._standing.enter(State.OPENING)
        logger.info(
            "Holding the mutex as %s; opening a term of partition %r",
            self.status.owner,
            self._partition,
            extra={"action": "mutex_taken", "owner": self.status.owner},
        )
        self._subscribe_ahead(client)
        OutboxRows(database, partition=self._partition).ensure_collection()
        quarantine = Quarantine(database, partition=self._partition)
        retention = self._retention(reading, quarantine)
        self._term = self._new_term(database, reading, client, quarantine)
        try:
            if retention is not None:
                retention.start()
            self._term.run(on_idle=mutex.check)
        finally:
            if retention is not None:
                retention.stop()
            self._term = None

    def _new_term(
        self,
        database: Database[Any],
        reading: Database[Any],
        client: pulsar.Client,
        quarantine: Quarantine,
    ) -> Term:
        checkpoints = CheckpointStore(database, partition=self._partition, owner=self.status.owner)
        return Term(
            database=database,
            origin=Origin(
                reading,
                checkpoints=checkpoints,
                quarantine=quarantine,
                partition=self._partition,
                margin=timedelta(hours=self._settings.history_margin_hours),
            ),
            client=client,
            checkpoints=checkpoints,
            quarantine=quarantine,
            routing=self._routing,
            options=self._term_options(),
            observer=self.observer,
            standing=self._standing,
            stopping=self._stopping,
        )

    def _term_options(self) -> TermOptions:
        settings = self._settings
        return TermOptions(
            partition=self._partition,
            checkpoint_interval=timedelta(seconds=settings.checkpoint_seconds),
            idle_checkpoint_interval=timedelta(seconds=settings.idle_checkpoint_seconds),
            # The rest is for the last checkpoint and for giving the mutex back.
            drain_timeout=timedelta(seconds=settings.shutdown_seconds * 0.75),
            max_message_bytes=self._largest,
            block_on_poison=settings.on_poison == "block",
            mark_sent=settings.mark_sent,
            lanes=LaneOptions(
                producer_name=f"postroom-relay-{self._partition}",
                # Two services share no mutex topic, so its name tells them apart.
                shared_producer_name=f"postroom-relay-{broker.canonical(self._mutex_topic())}",
                fenced=self._abilities is not None and self._abilities.fencing,
                send_timeout=timedelta(seconds=settings.send_timeout_seconds),
                read_timeout=OPERATION_TIMEOUT,
                batch_keyed=settings.batch_keyed,
            ),
        )

    def _retention(self, database: Database[Any], quarantine: Quarantine) -> Retention | None:
        age = self._settings.retention
        if age is None:
            return None
        return Retention(
            database,
            quarantine,
            partition=self._partition,
            age=age,
            margin=timedelta(hours=self._settings.history_margin_hours),
            pruned=self._count_pruned,
        )

    def _count_pruned(self, rows: int) -> None:
        self.observer.tell(facts.RowsPruned(partition=self._partition, rows=rows))

    def _subscribe_ahead(self, client: pulsar.Client) -> None:
        import pulsar

        for subscription, topics in self._subscriptions.items():
            for topic in topics:
                if topic.startswith("re:"):
                    continue
                try:
                    self._make_subscription(client, topic, subscription)
                except (pulsar.TopicNotFound, pulsar.AuthorizationError) as error:
                    logger.warning(
                        "The subscription %r on %s cannot be made (%s): what is sent there before "
                        "it exists may be gone",
                        subscription,
                        topic,
                        type(error).__name__,
                        extra={"action": "subscribe_ahead"},
                    )

    def _make_subscription(self, client: pulsar.Client, topic: str, subscription: str) -> None:
        if self._abilities is not None and self._abilities.fencing:
            broker.ensure_subscription(client, topic, subscription)
        else:
            broker.ensure_subscription_leniently(self._settings.pulsar_url, topic, subscription)


def _lacking(found: broker.Abilities) -> str:
    missing = [
        name
        for name, there in (("fencing", found.fencing), ("deduplication", found.deduplication))
        if not there
    ]
    if found.unknown:
        missing.append(f"the right to make a topic to try that on in {', '.join(found.unknown)}")
    return " and ".join(missing)
