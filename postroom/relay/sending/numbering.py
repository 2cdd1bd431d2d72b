"""Numbering: the position of each row, and where it has to jump."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.relay.sending.lane import Lane

__all__ = ["Numbering"]

logger = logging.getLogger(__name__)


class Numbering:
    """`position` is that of the last row that was put on a lane, or left out."""

    def __init__(self) -> None:
        self.position = 0

    def jump(self, lane: Lane, row_id: str, position: int) -> int:
        """Return the next number that a lane's broker takes, for a row that has a lower one.

        One at or below the lane's floor would be dropped by the broker's deduplication. The numbers
        of a replay differ from those before where another program moved the checkpoint (Hermes
        does), or where the collection was scanned.
        """
        logger.info(
            "Row %s has number %d, and %s has numbers up to %d already: it is sent as %d",
            row_id,
            position,
            lane.topic,
            lane.floor,
            lane.floor + 1,
            extra={"action": "renumber", "event_id": row_id},
        )
        return lane.floor + 1
