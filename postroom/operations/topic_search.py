"""Topic search: one event's messages on a topic, read from when it was written; bounded in time."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from postroom import wire
from postroom.inbox.parking.letters import properties_of

if TYPE_CHECKING:
    import pulsar

    from postroom.topics import Topic

__all__ = ["MessageTrace", "Searched", "search"]

# The writer's clock may be ahead of the relay's and the broker's.
SKEW = timedelta(minutes=1)
EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
QUIET_MS = 700
QUEUE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTrace:
    """One message of the event: where it is, and the position that the relay gave it."""

    topic: str
    message_id: str
    position: int | None
    published_at: datetime
    producer: str
    is_replay: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What was found on a topic, and how far it was looked at: to its end, or to a time."""

    topic: str
    messages: tuple[MessageTrace, ...]
    read: int
    since: datetime | None
    until: datetime | None = None

    @property
    def sentence(self) -> str:
        """Where was looked, in words."""
        begin = f"from {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since else "from its beginning"
        end = f"{self.until:%Y-%m-%d %H:%M:%S} UTC, for want of time" if self.until else "its end"
        return f"the topic {self.topic}, {begin} to {end} ({self.read} messages)"


def search(
    client: pulsar.Client,
    topic: Topic,
    event_id: str,
    *,
    written_at: datetime | None,
    seconds: float,
) -> Searched:
    """Read a topic forward, from a minute before the event was written, for some seconds.

    From its beginning where that time is None, as on the embedded broker, which knows no times.

    Raises:
        pulsar.PulsarException: the topic cannot be read.

    """
    import pulsar

    end, read, found = time.monotonic() + seconds, 0, []
    # An id may be the text of a time before all brokers.
    since = None if written_at is None else max(written_at, EARLIEST) - SKEW
    reader = client.create_reader(
        topic, pulsar.MessageId.earliest, receiver_queue_size=QUEUE, reader_name="postroom-show"
    )
    with contextlib.closing(reader):
        if since is not None:
            reader.seek(round(since.timestamp() * 1000))
        while (message := _next(reader)) is not None:
            read += 1
            if properties_of(message).get(wire.ID) == event_id:
                found.append(_trace(topic, message))
            if time.monotonic() > end:
                until = _time(message.publish_timestamp())
                return Searched(
                    topic=topic, messages=tuple(found), read=read, since=since, until=until
                )
    return Searched(topic=topic, messages=tuple(found), read=read, since=since)


def _next(reader: pulsar.Reader) -> pulsar.Message | None:
    import pulsar

    with contextlib.suppress(pulsar.Timeout):
        return reader.read_next(timeout_millis=QUIET_MS)
    return None


def _trace(topic: Topic, message: pulsar.Message) -> MessageTrace:
    properties, place = properties_of(message), message.message_id()
    position = properties.get(wire.POSITION, "")
    return MessageTrace(
        topic=topic,
        message_id=f"{place.ledger_id()}:{place.entry_id()}:{place.batch_index()}",
        position=int(position) if position.isdecimal() and len(position) < 19 else None,
        published_at=_time(message.publish_timestamp()),
        producer=message.producer_name(),
        is_replay=wire.REPLAY in properties,
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
