"""Numbering: the position of each row, and where it has to jump."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.relay.lane import Lane

__all__ = ["Numbering"]

logger = logging.getLogger(__name__)


class Numbering:
    """`position` is that of the last row that was put on a lane, or left out."""

    def __init__(self) -> None:
        self.position = 0

    def jump(self, lane: Lane, position: int) -> int:
        """Return the next number that a lane's broker takes, for a row that has a lower one.

        The numbers of a replay differ from those before where another program moved the checkpoint
        (Hermes does), or where the collection was scanned. One at or below the lane's floor would
        be dropped by the broker's deduplication.
        """
        logger.info(
            "Numbering goes on at %d on %s, not at %d: that topic has numbers up to %d already, "
            "and not the row that comes now",
            lane.floor + 1,
            lane.topic,
            position,
            lane.floor,
            extra={"action": "renumber"},
        )
        return lane.floor + 1
