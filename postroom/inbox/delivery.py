"""Delivery: one Pulsar message held by a consumer until every handler is done with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from postroom import broker, errors, events, wire

if TYPE_CHECKING:
    import pulsar

    from postroom.inbox.handlers import Handler

__all__ = ["Delivery", "Failures", "place_of"]

Place = tuple[str, int, int, int]

LONGEST_POSITION = 20


def place_of(message: pulsar.Message) -> Place:
    """Say where in Pulsar the message stands: topic, ledger, entry, index within a batch."""
    where = message.message_id()
    return (message.topic_name(), where.ledger_id(), where.entry_id(), where.batch_index())


def _read(message: pulsar.Message) -> tuple[dict[str, str], str | None, str]:
    # Another producer's may be no UTF-8; such a message is a dead letter, by its payload alone.
    try:
        return dict(message.properties()), message.partition_key() or None, ""
    except UnicodeDecodeError:
        return {}, None, "The message's properties or key are no UTF-8"


@dataclass(slots=True)
class Failures:
    """How often and when a handler has failed with one event."""

    attempts: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, *, counts: bool) -> None:
        """Note a failure now; one that does not count leaves the attempts as they are."""
        self.last = datetime.now(UTC)
        self.first = self.first or self.last
        self.attempts += counts


@dataclass(slots=True, eq=False)
class Delivery:
    """A message, the event in it, and the handlers that are still to run."""

    source: pulsar.Consumer
    message: pulsar.Message
    place: Place
    event_id: str
    key: str | None
    size: int
    properties: dict[str, str]
    event: events.Event[dict[str, Any]] | None = None
    handlers: list[Handler] = field(default_factory=list)
    waiting_for: set[str] = field(default_factory=set)
    failures: dict[str, Failures] = field(default_factory=dict)
    parked: bool = False
    fault: str = ""
    # Whether a worker that was ended may have held it.
    suspect: bool = False

    @classmethod
    def of(cls, message: pulsar.Message, source: pulsar.Consumer) -> Delivery:
        """Take a message in, without looking into its payload."""
        place = place_of(message)
        properties, key, fault = _read(message)
        topic, ledger, entry, index = place
        return cls(
            source=source,
            message=message,
            place=place,
            # A producer that is not ours gives no id: its place in the topic is one.
            event_id=properties.get(wire.ID) or f"{topic}:{ledger}:{entry}:{index}",
            key=key,
            size=len(message.data()),
            properties=properties,
            fault=fault,
        )

    @property
    def _topic(self) -> str:
        return broker.base_topic(self.place[0])

    @property
    def origin(self) -> str:
        """The topic that the event was read from first: a redriven one says so."""
        topic = self._topic
        if topic.endswith(wire.REDRIVE):
            return self.properties.get(wire.DEAD_TOPIC) or topic
        return topic

    @property
    def only_for(self) -> str | None:
        """The one handler that a redriven event is for."""
        if self._topic.endswith(wire.REDRIVE):
            return self.properties.get(wire.REDRIVE_HANDLER) or None
        return None

    def open(self) -> events.Event[dict[str, Any]]:
        """Decode the payload.

        Raises:
            InvalidEvent: it is not an event.

        """
        if self.fault:
            raise errors.InvalidEvent(self.fault)
        name, data = events.decode(self.message.data())
        position = self.properties.get(wire.POSITION, "")[:LONGEST_POSITION]
        at = self.message.event_timestamp() or self.message.publish_timestamp()
        self.event = events.Event(
            id=self.event_id,
            name=name,
            data=data,
            topic=self.origin,
            key=self.key,
            position=int(position) if position.isdecimal() else None,
            occurred_at=events.utc(at),
            headers=self.properties,
        )
        return self.event

    def failed(self, handler: Handler | None, *, counts: bool) -> Failures:
        """Note a failure of a handler, or of reading the event at all."""
        found = self.failures.setdefault(handler.name if handler else "", Failures())
        found.add(counts=counts)
        return found
