"""What all lanes of a term have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["LaneOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneOptions:
    """The settings that lanes obey, and what the broker can do.

    `producer_name` is the relays' own on fenced topics; `shared_producer_name` tells the outboxes
    apart that send to one shared topic. `fenced` says whether the broker can fence.
    A scan after lost history reads back what a topic received in the `kept_for` before the
    checkpoint.
    """

    producer_name: str
    shared_producer_name: str
    fenced: bool
    send_timeout: timedelta
    read_timeout: timedelta
    kept_for: timedelta

    def name_on(self, *, shared: bool) -> str:
        """Return the name of the producer on a topic that has others, or has not."""
        return self.shared_producer_name if shared else self.producer_name

    @property
    def names(self) -> frozenset[str]:
        """Both: a topic may have been declared shared, or no longer, since the last term."""
        return frozenset({self.producer_name, self.shared_producer_name})
