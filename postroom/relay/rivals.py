"""Rivals: relays of one outbox partition that do not meet at one mutex, and so exclude nobody."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from postroom.reminders import Announcement

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from postroom.relay.candidate import Candidate
    from postroom.store.checkpoints import CheckpointStore
    from postroom.store.claims import Claim

__all__ = ["SILENT_SECONDS", "Rivals"]

logger = logging.getLogger(__name__)

# A relay shows that it lives every three seconds, or after a call to MongoDB that failed, which
# takes fifteen at most.
SILENT_SECONDS = 20.0
LOOK_SECONDS = 1.0
REMIND_SECONDS = 600.0


class Rivals:
    """Keeps a relay out of an outbox partition that another one has; the relay's thread alone.

    Who holds a mutex replaces those who held that one before, at once. Whoever holds another one,
    on another topic or of another cluster, is left alone for as long as it lives: they would depose
    each other for ever. Whether it lives is told by its checkpoint, which moves; no clock is asked.
    """

    def __init__(self, candidate: Candidate, *, stopping: threading.Event) -> None:
        self._candidate = candidate
        self._stopping = stopping
        self._was_deposed = False
        self._announced = Announcement(every_seconds=REMIND_SECONDS)

    def refused(self) -> None:
        """Note that somebody else holds our mutex: whoever deposed us meets where we do."""
        self._was_deposed = False

    def deposed(self) -> None:
        """Note that another relay took over: if our mutex is free now, it holds another one."""
        self._was_deposed = True

    def await_silence(self, store: CheckpointStore, *, waiting: Callable[[str], None]) -> bool:
        """Return True once nobody else has the outbox partition, False where we are stopped first.

        Called with the mutex held; `waiting` hears about once a second why it waits.

        Raises:
            MutexLost: `waiting` found that the mutex is held no longer.
            pymongo.errors.PyMongoError: the claim cannot be read.

        """
        seen, heard, silent_since = store.claim(), False, time.monotonic()
        while (rival := self._rival(seen)) is not None:
            if self._stopping.is_set():
                return False
            if time.monotonic() - silent_since > SILENT_SECONDS:
                logger.info("%s gave no sign of life, and is replaced", rival.owner)
                return True
            sentence = self._sentence(rival, heard=heard)
            if self._announced.is_due(sentence):
                level = logging.WARNING if heard else logging.INFO
                logger.log(level, "%s", sentence, extra={"action": "rival"})
            waiting(sentence)
            self._stopping.wait(LOOK_SECONDS)
            now = store.claim()
            if now != seen:
                seen, heard, silent_since = now, True, time.monotonic()
        self._was_deposed = False
        return True

    def _rival(self, claim: Claim | None) -> Claim | None:
        ours = self._candidate
        if claim is None or claim.owner in {None, ours.owner}:
            return None
        elsewhere = claim.mutex is not None and claim.mutex != ours.meeting_place
        return claim if elsewhere or self._was_deposed else None

    def _sentence(self, rival: Claim, *, heard: bool) -> str:
        ours = self._candidate
        where = "a mutex that it does not name" if rival.mutex is None else f"{rival.mutex}"
        who = (
            f"Outbox partition {ours.partition!r} belongs to the relay {rival.owner}, whose mutex "
            f"is {where}, while this relay's is {ours.meeting_place}: they do not exclude each "
            "other, so that this one"
        )
        if not heard:
            return f"{who} first waits for {SILENT_SECONDS:.0f} s whether that one lives"
        return (
            f"{who} relays nothing for as long as that one lives. Give both one "
            "POSTROOM_MUTEX_TOPIC, on one Pulsar, or stop that one; standing by"
        )
