"""Unserved: says which outbox partitions no relay worker serves."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from postroom.reminders import Announcement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.store.holdings import Holding
    from postroom.store.values import OutboxPartition

__all__ = ["Unserved"]

logger = logging.getLogger(__name__)

# A holder that relays shows a sign of life every three seconds.
SILENT_SECONDS = 20.0
FREE_SECONDS = 8.0
REMIND_SECONDS = 600.0


class Unserved:
    """Watches for outbox partitions that give no sign of life: nobody has them, or one that hangs.

    Once all have one again that is said, too. Used by the pool's thread alone.
    """

    def __init__(self, partitions: Sequence[OutboxPartition]) -> None:
        self._partitions = partitions
        self._seen: dict[OutboxPartition, tuple[object, float]] = {}
        self._announced = Announcement((), every_seconds=REMIND_SECONDS)

    def look(self, holdings: Sequence[Holding], *, held: frozenset[OutboxPartition]) -> None:
        """Look at all, and say what is new or has lasted for another ten minutes."""
        now = time.monotonic()
        found = tuple(each.partition for each in holdings if self._is_without(each, held, now))
        if not (found or self._announced.what) or not self._announced.is_due(found):
            return
        if not found:
            logger.info(
                "All %d outbox partitions are served again",
                len(self._partitions),
                extra={"action": "served"},
            )
            return
        logger.warning(
            "Nobody serves the outbox partition%s %s: what is committed there waits. Start another "
            "relay worker, or let those that run serve more (POSTROOM_RELAY_SHARE, -Q relay "
            "without numbers)",
            "" if len(found) == 1 else "s",
            ", ".join(found),
            extra={"action": "unserved", "partitions": list(found)},
        )

    def _is_without(self, holding: Holding, held: frozenset[OutboxPartition], now: float) -> bool:
        if holding.partition in held or (holding.is_paused and holding.holder is not None):
            self._seen.pop(holding.partition, None)
            return False
        sign = holding.holder, holding.sign
        before, since = self._seen.get(holding.partition, (None, now))
        if before != sign:
            since = now
        self._seen[holding.partition] = sign, since
        return now - since > (FREE_SECONDS if holding.holder is None else SILENT_SECONDS)
