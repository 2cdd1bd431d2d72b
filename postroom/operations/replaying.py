"""Replaying: old events sent again, to another topic, marked as a replay."""

from __future__ import annotations

import contextlib
import functools
import queue
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from postroom import broker, errors, refusals, topics, wire
from postroom.access import pulsar as pulsar_access
from postroom.operations import actions
from postroom.operations.done import Done
from postroom.pace import Pace
from postroom.private_text import quoted
from postroom.store import codec, letter
from postroom.store.checkpoints import Checkpoints
from postroom.store.old_rows import OldRows
from postroom.store.partitioning_record import read_all, run
from postroom.topics import base_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import pulsar
    from pymongo.database import Database

    from postroom.operations.actions import Actor
    from postroom.operations.wiring import Wiring
    from postroom.routing import Routing
    from postroom.store.codec import Row
    from postroom.store.letter import Letter
    from postroom.topics import Topic

__all__ = ["OldEvents", "count", "replay", "target"]

OPERATION_TIMEOUT = timedelta(seconds=10)
SEND_TIMEOUT_MS = 15_000
MOST_UNDER_WAY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class OldEvents:
    """Which old events: those of an outbox partition that say they occurred within a time.

    `until` itself is outside. With a `name`, those of that name alone. They are sent to `to_topic`,
    which is none that a relay sends to, unless `onto_original`: then those alone that are routed to
    it, where any are.
    """

    partition: str
    since: datetime
    until: datetime
    to_topic: str
    name: str | None = None
    onto_original: bool = False

    def rows(self, database: Database[Any]) -> OldRows:
        """Return the rows that are meant."""
        return OldRows(
            database,
            partition=self.partition,
            since=self.since,
            until=self.until,
            name=self.name,
        )


def count(database: Database[Any], wiring: Wiring, asked: OldEvents) -> int:
    """Return how many events are meant, of those that the outbox still has.

    Raises:
        ConfigurationError: the topic is one that a relay sends to, or can be none.
        RoutingFailed: a routing or key function failed for a reason that passes.
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    meant = _Meant(database, wiring, asked)
    return meant.rows.count() if meant.is_all else sum(1 for _ in meant)


def replay(
    database: Database[Any],
    wiring: Wiring,
    asked: OldEvents,
    *,
    actor: Actor,
    rate_per_second: float | None = None,
    told: Callable[[Done], None] = lambda _: None,
    interrupted: Callable[[datetime], None] = lambda _: None,
) -> Done:
    """Send old events again, in the order of their ids, each under its own id.

    A message of a replay has the property `replay`, with the time at which that began, and none of
    the relay's numbers, so that neither the relay nor the broker's deduplication takes it for the
    first one. A handler that has handled the event does not handle it again. What can be no message
    is left, and named. An interruption waits for what is on its way, and leaves what was sent:
    `interrupted` hears from when to go on, so that none is missed; what occurred in that very
    moment may go twice.

    Raises:
        ConfigurationError: the topic is one that a relay sends to, or can be none.
        ServiceUnavailable: the topic did not take one; the message says from when to go on.
        RoutingFailed: a routing or key function failed for a reason that passes.
        pulsar.PulsarException: the topic cannot be opened.
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    meant = _Meant(database, wiring, asked)
    what = f"outbox partition {asked.partition} to topic {meant.topic}"
    done = Done(asked=meant.rows.count() if meant.is_all else None)
    pace = Pace(rate_per_second)
    access = pulsar_access.of(wiring.settings)
    span = f"replay {asked.since.isoformat()} to {asked.until.isoformat()}"
    with (
        actions.noted(database, actor, f"{span}, {asked.name or 'all names'}", target=what) as note,
        broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as client,
    ):
        sender = _Sender(client, meant.topic, meant.rows)
        try:
            for row, made in meant:
                if isinstance(made, errors.Poison):
                    done = done.and_refused(str(codec.id_of(row)), made)
                    continue
                pace.wait(meanwhile=functools.partial(told, done))
                sender.send(made, codec.id_of(row))
                done = done.and_more(done=1)
                told(done)
            sender.finish()
        except KeyboardInterrupt:
            if (since := sender.settle()) is not None:
                interrupted(since)
            told(replace(done, done=sender.stored))
            raise
        finally:
            note.count = sender.stored
    return done


def target(database: Database[Any], wiring: Wiring, asked: OldEvents) -> Topic:
    """Return the topic that a replay goes to, or refuse it.

    Raises:
        ConfigurationError: the topic is one that a relay sends to, or can be none.
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    try:
        topic = broker.canonical(topics.checked(asked.to_topic))
    except ValueError as error:
        raise errors.ConfigurationError(f"{quoted(asked.to_topic)} is no topic: {error}") from None
    if topic.endswith((wire.DEAD, wire.REDRIVE)):
        raise errors.ConfigurationError(f"{topic} is for dead letters, and not for a replay")
    if not asked.onto_original and base_topic(topic) in _relayed(database, wiring):
        raise errors.ConfigurationError(
            f"{topic} is a topic that the relay sends to: all of its subscriptions would read old "
            "events again. Replay to a topic of its own, or say --onto-original"
        )
    return topic


class _Meant:
    """The rows that are meant, each with its letter, or with why there can be none.

    `is_all` says that none is left out, for being routed to another topic.
    """

    def __init__(self, database: Database[Any], wiring: Wiring, asked: OldEvents) -> None:
        self.topic = target(database, wiring, asked)
        self.rows = asked.rows(database)
        # Elsewhere is never where rows were meant for; and what nobody relays to is for all.
        self.is_all = not asked.onto_original or base_topic(self.topic) not in _relayed(
            database, wiring
        )
        self._routing = _routing(database, wiring, asked.partition)
        self._max_message_bytes = wiring.settings.max_message_bytes

    def __iter__(self) -> Iterator[tuple[Row, Letter | errors.Poison]]:
        for row in self.rows:
            try:
                made = letter.write(row, self._routing, self._max_message_bytes)
            except errors.Poison as poison:
                yield row, poison
            else:
                if self.is_all or self.topic in (made.topic, base_topic(made.topic)):
                    yield row, made


def _relayed(database: Database[Any], wiring: Wiring) -> Collection[Topic]:
    """Return what relays send to, as far as that is known, each as a whole topic."""
    lanes = (each for row in Checkpoints(database).all() for each in row.lanes)
    return {base_topic(each) for each in (*wiring.routing.topics, *lanes)}


def _routing(database: Database[Any], wiring: Wiring, partition: str) -> Routing:
    """Return the routing as an outbox partition's relay has it."""
    if wiring.routing.partitions == 1:
        return wiring.routing
    for record in run(database, read_all()):
        for each in (record.partitioning, record.following, *record.closed):
            if partition in each.names:
                return wiring.routing.toward(each.index_of(partition))
    return wiring.routing


class _Sender:
    """Sends letters, some under way at a time, and raises what the topic did not take.

    One by one, without batches: a Key_Shared subscription takes a batch's first key for all of it.
    """

    def __init__(self, client: pulsar.Client, topic: Topic, rows: OldRows) -> None:
        self.stored = 0
        self._topic = topic
        self._rows = rows
        self._began = datetime.now(UTC).isoformat("T", "seconds")
        self._answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._under_way = 0
        self._reached: Any = None
        self._producer = client.create_producer(
            topic,
            batching_enabled=False,
            send_timeout_millis=SEND_TIMEOUT_MS,
            properties={"postroom": "replay"},
        )

    def send(self, made: Letter, row_id: Any) -> None:
        """Send a letter once there is room."""
        while self._under_way >= MOST_UNDER_WAY:
            self._take()
        occurred = made.occurred_at
        self._under_way += 1
        self._producer.send_async(
            made.payload,
            lambda result, _: self._answers.put((result.name, row_id)),
            properties={**made.headers, wire.ID: made.id, wire.REPLAY: self._began},
            partition_key=made.key,
            event_timestamp=occurred if occurred > 0 else None,
        )

    def finish(self) -> None:
        """Wait until all is stored."""
        while self._under_way:
            self._take()
        broker.close(self._producer)

    def settle(self) -> datetime | None:
        """Wait for what is under way, and return from when to go on; None where all was stored."""
        with contextlib.suppress(errors.ServiceUnavailable):
            self.finish()
        return self._rows.earliest(behind=self._reached)

    def _take(self) -> None:
        try:
            answer, row_id = self._answers.get(timeout=2 * SEND_TIMEOUT_MS / 1000)
        except queue.Empty:
            answer, row_id = "Timeout", None
        self._under_way -= 1
        if answer == "Ok":
            # The client answers in the order in which it was asked.
            self.stored, self._reached = self.stored + 1, row_id
            return
        broker.close(self._producer)
        since = self._rows.earliest(behind=self._reached)
        raise errors.ServiceUnavailable(
            f"{self._topic} did not take an event ({refusals.meaning(answer)}): what was sent "
            f"before stays there; go on with --from {_moment(since)}"
        )


def _moment(at: datetime | None) -> str:
    return at.isoformat() if at is not None else "the same"
