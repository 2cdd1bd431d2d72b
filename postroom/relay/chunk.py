"""A chunk: what one batch became, on its way until all of it is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bson import Timestamp

    from postroom.relay.quarantine import Quarantined

__all__ = ["Chunk"]


@dataclass(slots=True, kw_only=True)
class Chunk:
    """One batch's letters, sent but perhaps not stored.

    `awaiting` counts the lanes that have not yet said that their part is stored; `marks` holds the
    serialised message id of each lane that has. A chunk of a scan has no token, and is never
    checkpointed by itself.
    """

    token: Mapping[str, Any] | None
    cluster_time: Timestamp | None
    position: int
    last_id: Any = None
    sent: int = 0
    payload_bytes: int = 0
    awaiting: int = 0
    marks: dict[str, bytes] = field(default_factory=dict)
    poison: list[Quarantined] = field(default_factory=list)
    row_ids: list[Any] = field(default_factory=list)

    @property
    def has_events(self) -> bool:
        """Whether the batch held any row, sent or not."""
        return self.last_id is not None
