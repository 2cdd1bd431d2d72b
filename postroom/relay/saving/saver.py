"""Saver: writes checkpoints when they are due, each in a thread of its own."""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from postroom import errors, tracing
from postroom.relay.saving.marks import Marks
from postroom.store.values import Position

if TYPE_CHECKING:
    from collections.abc import Callable

    from bson import Timestamp
    from pymongo.client_session import ClientSession

    from postroom.relay.saving.chunk import Chunk
    from postroom.relay.saving.tenure import Tenure
    from postroom.store.checkpoints import CheckpointStore, Point
    from postroom.store.values import Mark
    from postroom.topics import Topic

__all__ = ["CheckpointPace", "Saver", "Saving"]

LONGEST_WAIT_SECONDS = 1.0
LONGEST_WRITE_SECONDS = 20.0


@dataclass(slots=True, eq=False)
class Saving:
    """A checkpoint that is being written, and what that failed with.

    Its own thread sets `ended` and `error`, then `done`; the term's reads them behind that.
    """

    marks: dict[Topic, Mark]
    position: int
    cluster_time: Timestamp | None
    is_scanning: bool
    began: float
    ended: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPace:
    """How many seconds a checkpoint waits for the next one, while there are rows and without."""

    busy_seconds: float
    idle_seconds: float


class Saver:
    """Knows what is stored and what of that the checkpoint says; used by the term's thread alone.

    A write waits for the journal of a majority, and sending does not wait for the write. `tell` is
    called in the writing thread when one has ended; finished() then takes note of it, and calls
    `written` for one that succeeded.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        pace: CheckpointPace,
        tenure: Tenure,
        tell: Callable[[Saving], None],
        written: Callable[[Saving], None],
    ) -> None:
        self.marks = Marks()
        self._store = store
        self._pace = pace
        self.tenure = tenure
        self._tell = tell
        self._written = written
        self._saving: Saving | None = None
        self._stored: tuple[Point, Position, int] | None = None
        self._last_id: Any = None
        self._saved = 0.0

    def declare(self, topic: Topic, mark: Mark | None) -> None:
        """Name a lane in the checkpoint, before the first send: the next term looks there.

        Raises:
            TermEnded: MongoDB took too long over the write that was under way.
            Superseded, PyMongoError: what that one failed with, or this one.

        """
        # A save that is under way does not know of this lane yet, and must not write after it.
        self.wait()
        self._store.declare_lanes(self.marks.declare(topic, mark))

    def within_term(self, write: Callable[[ClientSession], None]) -> None:
        """Have something else be written by this term or not at all, in its transaction.

        Raises:
            Superseded, PyMongoError: as the store does.

        """
        self._store.within_term(write)

    def stored(self, chunk: Chunk) -> None:
        """Note that a chunk, and all before it, is stored."""
        self.marks.move(chunk.marks)
        if chunk.rows:
            self._last_id = chunk.last_id
        if chunk.point is not None:
            # Nothing can go on from the middle of a batch that a row blocks.
            if chunk.point.covers_tails:
                self.marks.cover()
            self._stored = (chunk.point, Position(chunk.position), chunk.brake_level)

    def hurry(self) -> None:
        """Have what is stored next be saved at once, as the end of a scan is."""
        self._saved = 0.0

    def idle_seconds(self) -> float:
        """Return for how many seconds nothing has to be saved."""
        if self._stored is None or self._saving is not None:
            return LONGEST_WAIT_SECONDS
        due = self._saved + self._interval_now()
        return max(0.0, min(LONGEST_WAIT_SECONDS, due - time.monotonic()))

    def waiting_seconds(self) -> float:
        """Return for how long a checkpoint has been under way."""
        return 0.0 if self._saving is None else time.monotonic() - self._saving.began

    def save_if_due(self) -> None:
        """Begin to write the checkpoint if there is news and the last one is old enough."""
        if self._stored is None or self._saving is not None:
            return
        if time.monotonic() - self._saved >= self._interval_now():
            self._save(*self._stored)

    def _interval_now(self) -> float:
        return self._pace.idle_seconds if self._last_id is None else self._pace.busy_seconds

    def save_all(self) -> None:
        """Write what there is, and wait for it.

        Raises:
            TermEnded: MongoDB took too long.
            Superseded, PyMongoError: what a write failed with.

        """
        self.wait()
        if self._stored is not None:
            self._save(*self._stored)
        self.wait()

    def _save(self, point: Point, position: Position, brake_level: int) -> None:
        marks = self.marks.take()
        last_id, self._last_id = self._last_id, None
        saving = self._saving = Saving(
            marks, position, point.cluster_time, point.scan is not None, time.monotonic()
        )
        self._stored = None
        self._saved = saving.began
        write = functools.partial(
            self._store.save,
            point,
            position=position,
            last_id=last_id,
            brake_level=brake_level,
            lanes=self.marks.with_taken(marks),
        )
        # A thread for each, a few a second: one that MongoDB holds up keeps no process from ending.
        threading.Thread(
            target=tracing.silently(self._write),
            args=(saving, write),
            name="relay-checkpoint",
            daemon=True,
        ).start()

    def _write(self, saving: Saving, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:  # noqa: BLE001 - raised by finished(), in the term's thread
            saving.error = error
        finally:
            saving.ended = time.monotonic()
            saving.done.set()
            self._tell(saving)

    def finished(self, saving: Saving) -> None:
        """Take note of a write that has ended.

        Raises:
            Superseded, PyMongoError: what it failed with.

        """
        if saving is not self._saving:
            return  # it was waited for already
        self._saving = None
        if saving.error is not None:
            raise saving.error
        self.marks.saved(saving.marks)
        self.tenure.renew(saving.began)
        self._written(saving)

    def wait(self) -> None:
        """Wait until no write is under way.

        Raises:
            TermEnded: MongoDB took too long.
            Superseded, PyMongoError: what the write failed with.

        """
        saving = self._saving
        if saving is None:
            return
        if not saving.done.wait(LONGEST_WRITE_SECONDS):
            raise errors.TermEnded(
                "MongoDB did not confirm a checkpoint in time; a new term begins"
            )
        self.finished(saving)
