"""The reader: a thread that reads a term's batches ahead of the sending."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from postroom import errors, tracing
from postroom.relay.reading.gathering import GATHERING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.relay.reading.batch import Batch
    from postroom.relay.reading.gathering import Gathering

__all__ = ["ReadFailed", "Reader"]

READ_AHEAD_BATCHES = 3


class ReadFailed(NamedTuple):
    """What reading ended with."""

    error: BaseException


class Reader:
    """Puts batches into the term's mailbox by `tell`, a few ahead of those that were taken.

    In a replay the Lookahead holds up to 14,000 rows of them before they are sent. make_room() lets
    one more come; each batch holds up to a reply of the server in memory. What has come to the
    mailbox is kept here, by the term's thread, until it is taken. has_room is asked in the reader's
    own thread, also by what reads.
    """

    def __init__(
        self, *, tell: Callable[[Batch | ReadFailed], None], gathering: Gathering = GATHERING
    ) -> None:
        self._tell = tell
        self._gathering = gathering
        self._places = threading.Condition()
        self._ahead = 0
        self._over = threading.Event()
        self._arrived: deque[Batch] = deque()
        self._asked_at: float | None = None
        self._stored = threading.Event()

    def start(self, batches: Iterator[Batch]) -> None:
        """Begin to read; once."""
        threading.Thread(
            target=tracing.silently(self._read), args=(batches,), name="relay-reader", daemon=True
        ).start()

    def arrived(self, batch: Batch) -> None:
        """Keep a batch that came to the mailbox, behind the others."""
        self._arrived.append(batch)

    @property
    def waiting_seconds(self) -> float:
        """For how long the server has been asked and has not answered; any thread may look."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else time.monotonic() - asked_at

    @property
    def has_arrived(self) -> bool:
        """Whether there is a batch to take."""
        return bool(self._arrived)

    @property
    def arrived_bytes(self) -> int:
        """How much that is."""
        return sum(batch.size for batch in self._arrived)

    def take(self) -> Batch:
        """Return the first of the batches that have come."""
        return self._arrived.popleft()

    def make_room(self) -> None:
        """Note that a batch needs its place no longer."""
        with self._places:
            self._ahead -= 1
            self._places.notify()

    @property
    def has_room(self) -> bool:
        """Whether another batch would be taken at once."""
        return self._ahead < READ_AHEAD_BATCHES

    def gather(self) -> None:
        """Let rows gather behind few; called by what reads, in the reader's own thread."""
        self._gathering.wait(self._stored)

    def all_is_stored(self) -> None:
        """Note, in the term's thread, that nothing that was taken is under way."""
        if not self._arrived and not self._stored.is_set():
            self._stored.set()

    def stop(self) -> None:
        """Have the thread end once the server has answered; it is not waited for."""
        self._over.set()
        with self._places:
            self._places.notify()

    def _wait_for_room(self) -> None:
        with self._places:
            self._places.wait_for(lambda: self.has_room or self._over.is_set())
            self._ahead += 1

    def _asked(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Pass batches on, and note since when the next one is waited for."""
        while True:
            self._asked_at = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self._asked_at = None
            yield batch

    def _read(self, batches: Iterator[Batch]) -> None:
        try:
            for batch in self._asked(batches):
                self._wait_for_room()
                if self._over.is_set():
                    return
                # Noted a moment too early that all is stored only has the next rows read sooner.
                self._stored.clear()
                self._tell(batch)
                if batch.ends_with:
                    return
        except BaseException as error:  # noqa: BLE001 - the term ends with it, in its own thread
            self._tell(ReadFailed(error))
        else:
            ended = errors.TermEnded("The change stream ended; a new term begins")
            self._tell(ReadFailed(ended))
