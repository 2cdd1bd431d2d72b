"""A chunk: what one batch became, on its way until all of it is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bson import Timestamp

    from postroom.relay.quarantine import Quarantined

__all__ = ["Ack", "Chunk", "Tell"]


class Ack(NamedTuple):
    """What the broker said of a chunk's part on one topic."""

    chunk: Chunk
    topic: str
    result: Any
    message_id: Any


Tell = Callable[[Ack], None]


@dataclass(slots=True, kw_only=True)
class Chunk:
    """One batch's letters, sent but perhaps not stored.

    `awaiting` counts the lanes that have not yet said that their part is stored; `marks` holds the
    serialised message id of each lane that has. A chunk of a scan has no token, and is never
    checkpointed by itself.
    """

    token: Mapping[str, Any] | None
    cluster_time: Timestamp | None
    position: int = 0
    last_id: Any = None
    sent: int = 0
    payload_bytes: int = 0
    awaiting: int = 0
    marks: dict[str, bytes] = field(default_factory=dict)
    poison: list[Quarantined] = field(default_factory=list)
    row_ids: list[Any] = field(default_factory=list)

    def teller(self, topic: str, tell: Tell) -> Callable[[Any, Any], None]:
        """Return the callback for the last message of the part on a topic."""

        def stored(result: Any, message_id: Any) -> None:
            tell(Ack(self, topic, result, message_id))

        return stored

    @property
    def has_events(self) -> bool:
        """Whether the batch held any row, sent or not."""
        return self.last_id is not None
