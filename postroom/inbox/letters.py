"""Dead letter: a given-up event as it is listed and put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom import errors, events, wire
from postroom.inbox.delivery import place_of

if TYPE_CHECKING:
    import pulsar

__all__ = ["SUBSCRIPTION", "DeadLetter"]

# Made on each dead-letter topic before the first letter, so that nothing sent there vanishes.
SUBSCRIPTION = "dead-letters"


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

    @classmethod
    def of(cls, message: pulsar.Message) -> DeadLetter:
        """Read the properties that DeadLetters.park() has written, or a stranger's none."""
        found = message.properties()
        return cls(
            id=found.get(wire.ID) or ":".join(map(str, place_of(message))),
            name=_name_in(message.data()),
            topic=found.get(wire.DEAD_TOPIC, ""),
            key=message.partition_key() or None,
            subscription=found.get(wire.DEAD_SUBSCRIPTION, ""),
            handler=found.get(wire.DEAD_HANDLER, ""),
            reason=found.get(wire.DEAD_REASON, ""),
            attempts=int(found.get(wire.DEAD_ATTEMPTS, "") or 0),
            first_failure=found.get(wire.DEAD_FIRST_FAILURE, ""),
            last_failure=found.get(wire.DEAD_LAST_FAILURE, ""),
        )


def _name_in(payload: bytes) -> str | None:
    try:
        return events.decode(payload)[0]
    except errors.InvalidEvent:
        return None
