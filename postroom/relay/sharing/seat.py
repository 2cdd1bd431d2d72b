"""A seat: one outbox partition's place in a worker that serves several."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING

from postroom import broker, errors
from postroom.access import pulsar as pulsar_access
from postroom.relay.office import OPERATION_TIMEOUT
from postroom.relay.stand import Means, watched_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.relay.inspection import Inspection
    from postroom.relay.mutex import PulsarMutex
    from postroom.relay.occupant import Occupant
    from postroom.relay.sharing.grounds import Grounds
    from postroom.relay.stand import Ground
    from postroom.settings import Settings
    from postroom.store.holdings import Holdings
    from postroom.store.values import OutboxPartition

__all__ = ["HeldLocks", "Seat"]

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0


class HeldLocks:
    """The outbox partitions whose locks one worker has, `most` of them at most. Thread-safe."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._partitions: set[OutboxPartition] = set()

    def add(self, partition: OutboxPartition) -> bool:
        """Add one, and say whether there was room."""
        with self._lock:
            if len(self._partitions) >= self._most:
                return False
            self._partitions.add(partition)
            return True

    def discard(self, partition: OutboxPartition) -> None:
        """Take one away, if it is there."""
        with self._lock:
            self._partitions.discard(partition)

    def now(self) -> frozenset[OutboxPartition]:
        """Return those that are held."""
        with self._lock:
            return frozenset(self._partitions)


class Seat:
    """A stand for one relay of a pool, which asks for its lock when the pool has it ask, once.

    call() and the look at when it was asked are the pool's; all else the relay's thread's, which
    forgets a question when a candidacy ends: one that came just then is asked again a round later.
    `answer` is called in that thread with what became of a question. Reading and sending have
    clients of their own, so that one outbox partition's trouble is no other's.
    """

    def __init__(
        self,
        settings: Settings,
        partition: OutboxPartition,
        *,
        inspection: Inspection,
        grounds: Grounds,
        held: HeldLocks,
        holdings: Callable[[Ground], Holdings],
        answer: Callable[[OutboxPartition, bool], None],
    ) -> None:
        self._settings = settings
        self._partition = partition
        self.inspection = inspection
        self._grounds = grounds
        self._held = held
        self._holdings = holdings
        self._answer = answer
        self._turn = threading.Event()
        self.asked_at: float | None = None
        self.reason = ""

    def call(self) -> None:
        """Have the relay ask for its lock, unless it asks already."""
        if self.asked_at is None and self._partition not in self._held.now():
            self.asked_at = time.monotonic()
            self._turn.set()

    @contextlib.contextmanager
    def candidacy(
        self, stopping: threading.Event, *, waiting: Callable[[str], None]
    ) -> Iterator[Ground | None]:
        """Lend the ground once the pool has called, or None where `stopping` was set first.

        Raises what Grounds.lend() does.
        """
        waiting(self.reason)
        while not self._turn.wait(BEAT_SECONDS) and not stopping.is_set():
            waiting(self.reason)
        try:
            if stopping.is_set():
                yield None
                return
            with self._grounds.lend() as ground:
                yield ground
        finally:
            self._held.discard(self._partition)
            self._turn.clear()
            self.asked_at = None

    def look(self, ground: Ground) -> None:
        """Do nothing: the pool looks for all."""

    def acquire(
        self,
        ground: Ground,
        mutex: PulsarMutex,
        stopping: threading.Event,  # noqa: ARG002 - it asks once
        *,
        waiting: Callable[[str], None],  # noqa: ARG002
    ) -> bool:
        """Ask once, and return whether the lock is ours and there is room for it.

        Raises what PulsarMutex.take() does; nobody is lent this ground again then.
        """
        import pulsar

        try:
            refused = mutex.take()
        except (pulsar.PulsarException, errors.ServiceUnavailable) as error:
            self._grounds.spend(ground)
            broker.require_let_in(ground.client, error)
            raise
        is_ours = refused is None
        self._note(refused)
        is_kept = is_ours and self._held.add(self._partition)
        if is_kept:
            self._holdings(ground).take(self._partition)
        self._turn.clear()
        self.asked_at = None
        self._answer(self._partition, is_ours)
        return is_kept

    def _note(self, refused: Occupant | None) -> None:
        """Keep, and say once, what stands in the way where it is no other relay."""
        reason = "" if refused is None else refused.sentence
        if reason and reason != self.reason:
            extra = {"action": "mutex_wait", "partition": self._partition}
            logger.warning("%s", reason, extra=extra)
        self.reason = reason

    @contextlib.contextmanager
    def office(self, ground: Ground) -> Iterator[Means]:
        """Lend clients, and note in the end that the lock was given back."""
        access = pulsar_access.of(self._settings)
        with (
            watched_database(self._settings) as (database, vigil),
            broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as client,
        ):
            try:
                yield Means(reading=database, vigil=vigil, client=client)
            except errors.MutexLost:
                self._grounds.spend(ground)
                raise
            self._held.discard(self._partition)
            self._holdings(ground).give(self._partition)
