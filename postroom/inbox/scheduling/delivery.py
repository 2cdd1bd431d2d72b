"""Delivery: one Pulsar message as a consumer has received it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from postroom import errors, events, topics, wire

if TYPE_CHECKING:
    import pulsar

    from postroom.envelope import Envelopes

__all__ = ["Acknowledger", "Delivery", "Place", "footprint", "place_of"]

Place = tuple[str, int, int, int]

LONGEST_POSITION = 20


class Acknowledger(Protocol):
    """Where a message came from, and is to be acknowledged."""

    def may_have_had(self, place: Place) -> bool:
        """Say whether another consumer may have had what is there before this one was."""

    def acknowledge(self, message: pulsar.Message) -> None:
        """Tell the broker that a message is done with."""


def place_of(message: pulsar.Message) -> Place:
    """Say where in Pulsar the message stands: topic, ledger, entry, index within a batch."""
    where = message.message_id()
    return (message.topic_name(), where.ledger_id(), where.entry_id(), where.batch_index())


def footprint(payload: bytes) -> int:
    """Return about how many bytes a payload fills together with what is decoded of it.

    Never much less than it really does: an empty object in a list takes 24 times its two bytes.
    """
    objects, lists, members = (payload.count(sign) for sign in (b"{", b"[", b","))
    return 3 * len(payload) + 240 * objects + 64 * lists + 96 * members


def _read(message: pulsar.Message) -> tuple[dict[str, str], str | None, str | None, str]:
    # Another producer's may be no UTF-8; such a message is a dead letter, by its payload alone.
    try:
        keys = message.partition_key() or None, message.ordering_key() or None
        found = dict(message.properties()), *keys
    except UnicodeDecodeError:
        return {}, None, None, "The message's properties or key are no UTF-8"
    sealed = message.encryption_context() is not None
    return *found, "The message is encrypted, and consumers here have no key" if sealed else ""


class Delivery(NamedTuple):
    """A message and what stands on its outside.

    `key` is what its producer keyed it by, `ordering_key` what Key_Shared goes by instead where a
    producer has set one; `topic` is what its topic partition belongs to, or its topic itself;
    `size` is about what it fills once it is decoded, in bytes.
    """

    source: Acknowledger
    message: pulsar.Message
    place: Place
    topic: str
    event_id: str
    key: str | None
    ordering_key: str | None
    size: int
    properties: dict[str, str]
    fault: str = ""

    @classmethod
    def of(cls, message: pulsar.Message, source: Acknowledger, *, size: int) -> Delivery:
        """Take a message in that fills about so much, without looking into its payload."""
        place = place_of(message)
        properties, key, ordering_key, fault = _read(message)
        topic, ledger, entry, index = place
        return cls(
            source=source,
            message=message,
            place=place,
            topic=topics.base_topic(topic),
            # A producer that is not ours gives no id: its place in the topic is one.
            event_id=properties.get(wire.ID) or f"{topic}:{ledger}:{entry}:{index}",
            key=key,
            ordering_key=ordering_key,
            size=size,
            properties=properties,
            fault=fault,
        )

    @property
    def order(self) -> str | None:
        """What it is kept in order by, as Key_Shared does."""
        return self.key if self.ordering_key is None else self.ordering_key

    @property
    def may_have_been_held(self) -> bool:
        """Whether a worker that has ended may have held it, before this one could."""
        return self.source.may_have_had(self.place)

    @property
    def is_redriven(self) -> bool:
        """Whether it was a dead letter, and has been put back."""
        return self.topic.endswith(wire.REDRIVE)

    @property
    def origin(self) -> str:
        """The topic that the event was read from first: a redriven one says so."""
        topic = self.topic
        if not self.is_redriven:
            return topic
        found = topics.base_topic(topics.canonical(self.properties.get(wire.DEAD_TOPIC, "")))
        # What a stranger has sent there may name any topic, or what is none.
        return found if topic.startswith(f"{found}-") else topic

    @property
    def only_for(self) -> str | None:
        """The one handler that a redriven event is for."""
        return self.properties.get(wire.REDRIVE_HANDLER) or None if self.is_redriven else None

    def event(self, envelopes: Envelopes) -> events.Event[dict[str, Any]]:
        """Open and decode the payload.

        Raises:
            KeyMissing: it is encrypted under a key that is not here.
            InvalidEvent: it is not an event.

        """
        if self.fault:
            raise errors.InvalidEvent(self.fault)
        payload = envelopes.opened(
            self.message.data(), self.properties, event_id=self.event_id, key=self.key
        )
        name, data = events.decode(payload)
        position = self.properties.get(wire.POSITION, "")[:LONGEST_POSITION]
        at = self.message.event_timestamp() or self.message.publish_timestamp()
        return events.Event(
            id=self.event_id,
            name=name,
            data=data,
            topic=self.origin,
            key=self.key,
            position=int(position) if position.isdecimal() else None,
            occurred_at=events.utc(at),
            headers=self.properties,
        )
