"""Letters: a given-up event on its way to the dead letters, and as it is listed there."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from postroom import errors, events, wire
from postroom.inbox.scheduling.delivery import place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pulsar

    from postroom.envelope import Envelopes

__all__ = ["SUBSCRIPTION", "DeadLetter", "UnsentLetter", "properties_of"]

# Made on each dead-letter topic before the first letter, so that nothing sent there vanishes.
SUBSCRIPTION = "dead-letters"
LONGEST_WAIT_SECONDS = 60.0
ATTEMPTS = re.compile(r"[0-9]{1,9}")

_numbers = itertools.count()


@dataclass(slots=True, eq=False, kw_only=True)
class UnsentLetter:
    """A dead letter that its topic does not have yet; `stored` is told once whether it has.

    Belongs to the letterbox once it was put there. `tries` counts the failures, `due` is when the
    next attempt may be made.
    """

    payload: bytes
    properties: Mapping[str, str]
    partition_key: str | None
    ordering_key: str | None
    event_timestamp: int | None
    stored: Callable[[bool], None]
    number: int = field(default_factory=lambda: next(_numbers))
    tries: int = 0
    due: float = 0.0
    size: int = field(init=False)

    def __post_init__(self) -> None:
        """Count about how many bytes a message of it has."""
        texts = [self.partition_key or "", self.ordering_key or ""]
        texts += [*self.properties.keys(), *self.properties.values()]
        self.size = len(self.payload) + sum(len(text.encode()) for text in texts)

    def send(self, producer: pulsar.Producer, answered: Callable[[Any, Any], None]) -> None:
        """Hand it to the client, which tells the answer in a thread of its own, or at once."""
        producer.send_async(
            self.payload,
            answered,
            properties=dict(self.properties),
            partition_key=self.partition_key,
            ordering_key=self.ordering_key,
            event_timestamp=self.event_timestamp,
        )

    def fail(self, *, alone: bool) -> None:
        """Note a failure; one among others may be another's fault, and is tried again at once."""
        self.tries += 1
        wait = min(2.0 ** (self.tries - 1), LONGEST_WAIT_SECONDS) if alone else 0.0
        self.due = time.monotonic() + wait


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter as it is listed: everything but its data."""

    id: str
    name: str | None
    topic: str
    key: str | None
    subscription: str
    handler: str
    reason: str
    attempts: int
    first_failure: str
    last_failure: str

    @property
    def identity(self) -> bytes:
        """Return what all copies of a letter have in common, and no other letter has.

        Its event, and the handler of a subscription that has given it up: the inbox knows the
        event as one, too.
        """
        texts = (self.id, self.handler, self.subscription, self.topic)
        whole = "".join(f"{len(text)}:{text}" for text in texts)
        return hashlib.blake2b(whole.encode("utf-8", "replace"), digest_size=16).digest()

    @classmethod
    def of(cls, message: pulsar.Message, envelopes: Envelopes) -> DeadLetter:
        """Read the properties that DeadLetters.park() has written, or a stranger's none.

        It has no name where its payload is encrypted, and not under one of our keys.
        """
        found = properties_of(message)
        attempts = found.get(wire.DEAD_ATTEMPTS, "")
        event_id = found.get(wire.ID) or ":".join(map(str, place_of(message)))
        key = _key_of(message)
        return cls(
            id=event_id,
            name=_name_in(message.data(), found, envelopes, event_id=event_id, key=key),
            topic=found.get(wire.DEAD_TOPIC, ""),
            key=key,
            subscription=found.get(wire.DEAD_SUBSCRIPTION, ""),
            handler=found.get(wire.DEAD_HANDLER, ""),
            reason=found.get(wire.DEAD_REASON, ""),
            attempts=int(attempts) if ATTEMPTS.fullmatch(attempts) else 0,
            first_failure=found.get(wire.DEAD_FIRST_FAILURE, ""),
            last_failure=found.get(wire.DEAD_LAST_FAILURE, ""),
        )


def properties_of(message: pulsar.Message) -> dict[str, str]:
    """Return a message's properties; none where a stranger's are no UTF-8."""
    try:
        return dict(message.properties())
    except UnicodeDecodeError:
        return {}


def _key_of(message: pulsar.Message) -> str | None:
    try:
        return message.partition_key() or None
    except UnicodeDecodeError:
        return None


def _name_in(
    payload: bytes,
    properties: Mapping[str, str],
    envelopes: Envelopes,
    *,
    event_id: str,
    key: str | None,
) -> str | None:
    try:
        return events.decode(envelopes.opened(payload, properties, event_id=event_id, key=key))[0]
    except errors.InvalidEvent:
        return None
