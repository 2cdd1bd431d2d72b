"""Interlude: what a relay does while its outbox partition is paused, and how it learns of that."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

from postroom import tracing
from postroom.relay.state import State
from postroom.store.pauses import Pauses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.database import Database

    from postroom.relay.standing import Standing
    from postroom.store.pauses import Pause
    from postroom.store.values import OutboxPartition

__all__ = ["Interlude"]

logger = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
LOOK_SECONDS = 0.25


class Interlude:
    """Knows whether an outbox partition is paused: asks once a second, in a thread of its own.

    `is_on` is set for as long as it is: a term then drains, writes its checkpoint and ends, and the
    relay sits it out with the mutex in its hand. It is also set where the relay is to give its
    mutex back. All but `is_on`, `is_leaving` and leave() is used by the relay's thread. Where
    MongoDB does not answer, what was known last stays. A lock keeps the thread of a candidacy that
    is over from what it has asked then and is answered only now.
    """

    def __init__(
        self, *, partition: OutboxPartition, standing: Standing, stopping: threading.Event
    ) -> None:
        self.is_on = threading.Event()
        self._leaving = threading.Event()
        self._partition = partition
        self._standing = standing
        self._stopping = stopping
        self._watching = threading.Lock()

    @contextlib.contextmanager
    def watched(self, database: Database[Any], wake: Callable[[], None]) -> Iterator[None]:
        """Keep `is_on` right within the block.

        `wake` is called each second for which it is set, in the thread that watches.

        Raises:
            pymongo.errors.PyMongoError: it is not known at the beginning.

        """
        over = threading.Event()
        self._learn(Pauses(database).of(self._partition))
        threading.Thread(
            target=tracing.silently(self._watch),
            args=(database, over, wake),
            name="relay-pauses",
            daemon=True,
        ).start()
        try:
            yield
        finally:
            with self._watching:
                over.set()

    def begin(self) -> None:
        """Begin a candidacy: whoever wanted the relay to leave wanted it to leave the last one."""
        self._leaving.clear()

    @property
    def is_leaving(self) -> bool:
        """Whether leave() was called in this candidacy; safe from any thread."""
        return self._leaving.is_set()

    def leave(self) -> None:
        """Have what is relayed end in order, and not go on; safe from any thread."""
        self._leaving.set()
        self.is_on.set()

    def sit_out(self, on_idle: Callable[[], None]) -> bool:
        """Return True once it is to be relayed, False once the relay stops or leaves.

        `on_idle` is called all the while, and its errors are raised.
        """
        if self._is_over():
            return False
        if not self.is_on.is_set():
            return True
        sentence = (
            f"Outbox partition {self._partition!r} is paused: what is committed waits, until "
            "`celery -A … outbox resume`"
        )
        self._standing.enter(State.PAUSED, sentence)
        logger.warning("%s", sentence, extra={"action": "paused"})
        while self.is_on.is_set() and not self._is_over():
            self._stopping.wait(LOOK_SECONDS)
            on_idle()
            # Whoever watches this thread hears that it goes round.
            self._standing.enter(State.PAUSED, sentence)
        if self._is_over():
            return False
        logger.info("Outbox partition %r is relayed again", self._partition)
        return True

    def _watch(
        self, database: Database[Any], over: threading.Event, wake: Callable[[], None]
    ) -> None:
        pauses = Pauses(database)
        while not over.wait(EVERY_SECONDS):
            try:
                pause = pauses.of(self._partition)
            except Exception as error:  # noqa: BLE001 - the relay itself finds out what ails MongoDB
                logger.debug("Pauses were not looked for (%s)", type(error).__name__)
            else:
                with self._watching:
                    if over.is_set():
                        return
                    self._learn(pause)
            if self.is_on.is_set():
                wake()

    def _learn(self, pause: Pause | None) -> None:
        if pause is None:
            self.is_on.clear()
        # Behind the clear(): leave() may have come between.
        if pause is not None or self._leaving.is_set():
            self.is_on.set()

    def _is_over(self) -> bool:
        return self._stopping.is_set() or self._leaving.is_set()
