"""The journey of one event: what each place on its way knows of it, found by its id."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bson import ObjectId

from postroom import broker, errors, inbox, refusals, wire
from postroom.access import pulsar as pulsar_access
from postroom.inbox.parking.redriving import exists
from postroom.inbox.receiving.directory import is_embedded
from postroom.operations import quarantined, scheduled
from postroom.operations.filters import Filter
from postroom.operations.topic_search import MessageTrace, search
from postroom.store.checkpoints import Checkpoints
from postroom.store.inbox_rows import identity
from postroom.store.outbox_rows import OutboxRows
from postroom.store.traces import HandledTrace, RowTrace, Traces, made_at
from postroom.store.values import OutboxPartition
from postroom.topics import base_topic
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pymongo.database import Database

    from postroom.inbox import DeadLetter
    from postroom.operations.wiring import Wiring
    from postroom.store.quarantine_search import FoundEntry
    from postroom.store.scheduled_search import Scheduled
    from postroom.topics import Topic

__all__ = ["HandledBy", "Journey", "event_of", "journey"]

COMMIT_SECONDS = 2.0
TOPIC_SECONDS = 4.0
LETTERS_SECONDS = 4.0
OPERATION_TIMEOUT = timedelta(seconds=5)
LOOK_SECONDS = 3.0
BUSY = "somebody else lists or redrives them now; look again in a while"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandledBy:
    """What a handler has made of the event, and the id of its task in Flower."""

    trace: HandledTrace
    task_id: str


@dataclass(slots=True, kw_only=True)
class Journey:
    """What is known of an event. `looked` says where was looked, `not_looked` where that failed.

    `committed_at` is the time of the transaction that wrote the row, where the oplog still tells.
    A dead letter here waits now: one that was redriven or discarded is none. How often a handler
    that succeeded was tried before, nobody keeps.
    """

    event_id: str
    scheduled: Scheduled | None = None
    row: RowTrace | None = None
    committed_at: datetime | None = None
    relayed: bool | None = None
    quarantined: FoundEntry | None = None
    messages: list[MessageTrace] = field(default_factory=list)
    handled: list[HandledBy] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    not_looked: list[str] = field(default_factory=list)

    @property
    def is_found(self) -> bool:
        """Whether any place knows the event."""
        return any(
            (
                self.scheduled,
                self.row,
                self.quarantined,
                self.messages,
                self.handled,
                self.dead_letters,
            )
        )

    @property
    def name(self) -> str | None:
        """The event's name, where the row or a dead letter tells it."""
        for each in (self.row, self.scheduled):
            if each is not None and each.name is not None:
                return each.name
        return next((each.name for each in self.dead_letters if each.name), None)


def journey(database: Database[Any], wiring: Wiring, event_id: str) -> Journey:
    """Find an event by its id: in the outbox, on the topics, in inbox, quarantine and dead letters.

    It takes some seconds for each topic at most, and changes nothing. A service that does not
    answer leaves its part out, and that is said.

    Raises:
        ConfigurationError: that can be no event's id.
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    if not event_id.strip():
        raise errors.ConfigurationError("An event's id has at least one character that is no blank")
    Filter(ids=(event_id,))  # refuses what nothing could have
    found = Journey(event_id=event_id)
    _in_mongodb(found, database, wiring)
    try:
        _in_pulsar(found, database, wiring)
    except Exception as error:  # noqa: BLE001 - whatever the client raises: a sentence says it
        found.not_looked.append(f"Pulsar: {wiring.sentences.of(error)}")
    return found


def event_of(found: Journey, database: Database[Any]) -> Mapping[str, Any] | None:
    """Return the event as its row holds it, payload and all; None where there is none to read.

    Whether it may be shown the caller knows (POSTROOM_SHOW_PAYLOADS).

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    if found.row is None:
        return None
    rows = OutboxRows(database, partition=OutboxPartition(found.row.partition))
    row = rows.find(found.row.row_id)
    event = row.get(OutboxField.DATA) if isinstance(row, Mapping) else None
    return event if isinstance(event, Mapping) else None


def _in_mongodb(found: Journey, database: Database[Any], wiring: Wiring) -> None:
    traces, ids = Traces(database), quarantined.ids_of(found.event_id)
    found.row = traces.row(ids)
    found.scheduled = scheduled.one(database, found.event_id)
    if found.row is not None:
        found.committed_at = traces.committed_at(found.row, seconds=COMMIT_SECONDS)
        found.relayed = _is_relayed(found, database)
    entries = quarantined.page(database, Filter(ids=(found.event_id,)), limit=1)
    found.quarantined = entries.items[0] if entries.items else None
    remembered = identity(found.event_id)
    found.handled = [
        HandledBy(
            trace=trace,
            task_id=wiring.task_id(
                remembered,
                name=found.name,
                subscription=trace.subscription,
                handler=trace.handler,
            ),
        )
        for trace in traces.handled(found.event_id)
    ]
    found.looked += [
        f"the collection {database.name}.{name}"
        for name in (
            wire.OUTBOX,
            wire.SCHEDULED,
            wire.FIRED,
            wire.QUARANTINE,
            wire.INBOX,
            wire.BEGUN,
        )
    ]


def _is_relayed(found: Journey, database: Database[Any]) -> bool | None:
    """Say whether the checkpoint is behind the row's transaction; None where that is not known."""
    if found.row is None or found.committed_at is None:
        return None
    of_partition = {each.partition: each for each in Checkpoints(database).all()}
    checkpoint = of_partition.get(found.row.partition)  # type: ignore[call-overload]
    if checkpoint is None:
        return False
    reached = checkpoint.cluster_time
    return None if reached is None else bool(reached.as_datetime() > found.committed_at)


def _in_pulsar(found: Journey, database: Database[Any], wiring: Wiring) -> None:
    access = pulsar_access.of(wiring.settings)
    knows_times = not is_embedded(access, timeout_seconds=LOOK_SECONDS)
    written = _written_at(found) if knows_times else None
    topics = _topics(database, wiring)
    with broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as client:
        for topic in topics:
            with _telling(found, f"the topic {topic}", wiring):
                if not exists(access, base_topic(topic)):
                    found.looked.append(f"the topic {topic}, which is not there")
                    continue
                searched = search(
                    client, topic, found.event_id, written_at=written, seconds=TOPIC_SECONDS
                )
                found.messages += searched.messages
                found.looked.append(searched.sentence)
    for subscription, topic in _letters_of(found, wiring):
        where = f"the dead letters of {subscription} on {topic}"
        with _telling(found, where, wiring):
            found.dead_letters += _letters(found.event_id, wiring, subscription, topic)
            found.looked.append(where)


def _written_at(found: Journey) -> datetime | None:
    if found.row is not None:
        return found.row.written_at
    return made_at(ObjectId(found.event_id)) if ObjectId.is_valid(found.event_id) else None


def _topics(database: Database[Any], wiring: Wiring) -> list[Topic]:
    known = [topic for each in Checkpoints(database).all() for topic in each.lanes]
    read = [topic for _, topic in wiring.subscribed()]
    # Of a divided topic its topic partitions are looked at, each by itself.
    divided = {base_topic(topic) for topic in known if base_topic(topic) != topic}
    return [t for t in dict.fromkeys([*wiring.routing.topics, *known, *read]) if t not in divided]


def _letters_of(found: Journey, wiring: Wiring) -> list[tuple[str, Topic]]:
    """Return whose dead letters may have it: those of the topics where it was, if it was found."""
    pairs = dict.fromkeys(wiring.subscribed())
    met = {base_topic(broker.canonical(message.topic)) for message in found.messages}
    by_pattern = [(subscription, topic) for subscription in wiring.consume for topic in met]
    return list(pairs | dict.fromkeys(by_pattern))


def _letters(
    event_id: str, wiring: Wiring, subscription: str, topic: Topic
) -> Iterator[DeadLetter]:
    letters = inbox.list_dead(wiring.settings, topic=topic, subscription=subscription)
    end = time.monotonic() + LETTERS_SECONDS
    with contextlib.closing(letters):
        for letter in letters:
            if letter.id == event_id:
                yield letter
            if time.monotonic() > end:
                raise errors.ServiceUnavailable(
                    f"there are more than could be looked at in {LETTERS_SECONDS:.0f} s"
                )


@contextlib.contextmanager
def _telling(found: Journey, where: str, wiring: Wiring) -> Iterator[None]:
    """Note where could not be looked, and go on."""
    try:
        yield
    except Exception as error:  # whatever the client raises: a sentence says it
        if refusals.is_away(type(error).__name__):
            raise  # the same will come of every other one
        busy = type(error).__name__ == "ConsumerBusy"
        found.not_looked.append(f"{where}: {BUSY if busy else wiring.sentences.of(error)}")
