"""A seat: one outbox partition's place in a worker that serves several."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING

from postroom import broker, errors
from postroom.access import pulsar as pulsar_access
from postroom.relay.occupant import Occupant
from postroom.relay.office import OPERATION_TIMEOUT
from postroom.relay.stand import Means, watched_database
from postroom.relay.state import State
from postroom.sentences import Sentences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.relay.inspection import Inspection
    from postroom.relay.mutex import PulsarMutex
    from postroom.relay.sharing.grounds import Grounds
    from postroom.relay.stand import Ground
    from postroom.settings import Settings
    from postroom.store.holdings import Holdings
    from postroom.store.values import OutboxPartition

__all__ = ["HeldLocks", "Seat"]

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
FREE = Occupant(sentence="")
UNKNOWN = Occupant(sentence="", is_held=False)


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

    @property
    def is_full(self) -> bool:
        """Whether there is room for no more."""
        with self._lock:
            return len(self._partitions) >= self._most

    def now(self) -> frozenset[OutboxPartition]:
        """Return those that are held."""
        with self._lock:
            return frozenset(self._partitions)


class Seat:
    """A stand for one relay of a pool, which asks for its lock when the pool has it ask, once.

    call() and the look at when it was asked are the pool's; all else the relay's thread's, which
    forgets a question when a candidacy ends: one that came just then is asked again a round later.
    Until it has been called it stands by, if the services let the worker in and its own last
    candidacy came to no error; otherwise it waits. `answer` is called in that thread with what
    became of a question. Reading and sending have clients of their own, so that one outbox
    partition's trouble is no other's.
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
        self._found = FREE

    def call(self) -> None:
        """Have the relay ask for its lock, unless it asks already."""
        if self.asked_at is None and self._partition not in self._held.now():
            self.asked_at = time.monotonic()
            self._turn.set()

    @contextlib.contextmanager
    def candidacy(
        self, stopping: threading.Event, *, waiting: Callable[[State, str], None]
    ) -> Iterator[Ground | None]:
        """Lend the ground once the pool has called, or None where `stopping` was set first.

        Raises what Grounds.lend() does.
        """
        waiting(*self._stands())
        while not self._turn.wait(BEAT_SECONDS) and not stopping.is_set():
            waiting(*self._stands())
        try:
            if stopping.is_set():
                yield None
                return
            with self._grounds.lend() as ground:
                yield ground
        except Exception:
            # The relay says why, and waits for that until another question is answered.
            self._found = UNKNOWN
            raise
        finally:
            self._held.discard(self._partition)
            self._turn.clear()
            self.asked_at = None

    def _stands(self) -> tuple[State, str]:
        # Who has no room asks for nothing, so that no answer would ever end its waiting.
        asks = not self._held.is_full
        if asks and not self._found.is_held:
            return State.WAITING, self._found.sentence
        trouble = self._grounds.admittance.trouble(asks=asks)
        if trouble is not None:
            return State.WAITING, trouble
        return State.STANDBY, self._found.sentence

    def look(self, ground: Ground) -> None:
        """Do nothing: the pool looks for all."""

    def acquire(
        self,
        ground: Ground,
        mutex: PulsarMutex,
        stopping: threading.Event,  # noqa: ARG002 - it asks once
        *,
        waiting: Callable[[State, str], None],  # noqa: ARG002
    ) -> bool:
        """Ask once, and return whether the lock is ours and there is room for it.

        Raises what PulsarMutex.take() does; nobody is lent this ground again then.
        """
        import pulsar

        try:
            refused = mutex.take()
        except (pulsar.PulsarException, errors.ServiceUnavailable) as error:
            self._grounds.spend(ground)
            self._explain(ground, error)
            raise
        is_ours = refused is None
        self._note(refused or FREE)
        is_kept = is_ours and self._held.add(self._partition)
        if is_kept:
            self._holdings(ground).take(self._partition)
        self._turn.clear()
        self.asked_at = None
        self._answer(self._partition, is_ours)
        return is_kept

    def _explain(self, ground: Ground, error: BaseException) -> None:
        """Note for all seats why a lock cannot be asked for; raise it, where Pulsar tells more."""
        try:
            broker.require_let_in(ground.client, error)
        except errors.ServiceUnavailable as worse:
            self._grounds.admittance.unanswered(str(worse))
            raise
        settings = self._settings
        sentences = Sentences(
            mongodb_uri=settings.mongodb_uri,
            pulsar_url=settings.pulsar_url,
            next_step="it is asked again",
        )
        self._grounds.admittance.unanswered(sentences.of(error))

    def _note(self, found: Occupant) -> None:
        """Keep, and say once, what stands in the way where it is no other relay."""
        if found.sentence and found.sentence != self._found.sentence:
            extra = {"action": "mutex_wait", "partition": self._partition}
            logger.warning("%s", found.sentence, extra=extra)
        self._found = found
        if found.is_held:
            self._grounds.admittance.answered()

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
