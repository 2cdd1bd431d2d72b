"""Numbering: the position of each row, and where it has to jump."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from postroom.relay.sending.lane import Lane

__all__ = ["Numbering"]

logger = logging.getLogger(__name__)


class Numbering:
    """`position` is that of the last row that was put on a lane, or left out."""

    def __init__(self) -> None:
        self.position = 0

    def jump(self, lane: Lane, row_id: str, position: int, known: Collection[str]) -> int:
        """Return the next number that a lane's broker takes, for a row that has a lower one.

        One at or below the lane's floor would be dropped by the broker's deduplication. The numbers
        of a replay differ from those before where another program moved the checkpoint (Hermes
        does), or where the collection was scanned. But where events of `known`, that an earlier
        term sent, are still to be met in the replay, the row may belong before them: what it lacked
        then must not pass unseen.
        """
        later = sum(each in known for each in lane.tail)
        logger.log(
            logging.WARNING if later else logging.INFO,
            "Row %s has number %d, and %s has numbers up to %d already%s: it is sent as %d",
            row_id,
            position,
            lane.topic,
            lane.floor,
            f", {later} of them events that this term has not met yet and that may belong behind it"
            if later
            else "",
            lane.floor + 1,
            extra={"action": "renumber", "event_id": row_id},
        )
        return lane.floor + 1
