"""Heartbeat: a relay shows in its checkpoint that it lives, whatever it waits for."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from pymongo import errors as mongo

from postroom import errors, private_text, tracing

if TYPE_CHECKING:
    from postroom.store.checkpoints import CheckpointStore

__all__ = ["Heartbeat"]

logger = logging.getLogger(__name__)

EVERY_SECONDS = 3.0


class Heartbeat:
    """Moves the claim of one term, in a thread of its own; start() and stop() around the term.

    As the mutex does, it says that the process lives, not that events flow.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=tracing.silently(self._loop), name="relay-heartbeat", daemon=True
        )

    def start(self) -> None:
        """Begin; in the first term of a candidacy nothing is written until it has its epoch."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; not waited for, it may write once more, which does no harm."""
        self._over.set()

    def _loop(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            try:
                self._store.show_life()
            except (mongo.PyMongoError, errors.Superseded) as error:
                # The term finds out by itself, from what it reads and writes.
                logger.debug("No sign of life was written: %s", private_text.described(error))
