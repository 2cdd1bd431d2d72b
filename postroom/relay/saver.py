"""Saver: writes the checkpoint when it is due, in a thread of its own."""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from postroom import errors
from postroom.relay import facts
from postroom.store.values import Position

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from bson import Timestamp

    from postroom.observation import Observer
    from postroom.relay.chunk import Chunk
    from postroom.store.checkpoints import CheckpointStore, Point
    from postroom.store.values import Mark
    from postroom.topics import Topic

__all__ = ["Saver", "Saving"]

# A relay that has not heard of its own term for this long asks before it sends: it may have been
# frozen, and the broker takes five seconds to give its mutex away.
TRUST_SECONDS = 3.0
LONGEST_WAIT_SECONDS = 1.0
LONGEST_WRITE_SECONDS = 20.0


@dataclass(slots=True, eq=False)
class Saving:
    """A checkpoint that is being written, and what that failed with."""

    marks: dict[Topic, Mark]
    position: int
    cluster_time: Timestamp | None
    began: float
    ended: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class Saver:
    """Knows what is stored and what of that the checkpoint says; used by the term's thread alone.

    A write waits for the journal of a majority, and sending does not wait for the write. `tell` is
    called in the writing thread when one has ended; finished() then takes note of it.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        interval: timedelta,
        idle_interval: timedelta,
        observer: Observer,
        partition: str,
        tell: Callable[[Saving], None],
    ) -> None:
        self._store = store
        self._interval = interval.total_seconds()
        self._idle_interval = idle_interval.total_seconds()
        self._observer = observer
        self._partition = partition
        self._tell = tell
        self._saving: Saving | None = None
        self._stored: tuple[Point, Position] | None = None
        # What the checkpoint says of each lane, and what its next save will add to that. They are
        # kept apart: a mark ahead of the point would hide from the next term what it must skip.
        self._marks: dict[Topic, Mark | None] = {}
        self._new_marks: dict[Topic, Mark] = {}
        self._marks_without_point: dict[Topic, Mark] = {}
        self._last_id: Any = None
        self._confirmed = 0.0
        self._saved = 0.0

    def begin(self, marks: Mapping[Topic, Mark | None]) -> None:
        """Take over what the checkpoint says of the lanes."""
        self._marks = dict(marks)
        self.renew_trust()

    def mark_of(self, topic: Topic) -> Mark | None:
        """Return what the checkpoint says of a lane."""
        return self._marks.get(topic)

    def is_declared(self, topic: Topic) -> bool:
        """Whether the checkpoint names the lane, so that its tail can be found."""
        return topic in self._marks

    def declare(self, topic: Topic, mark: Mark | None) -> None:
        """Name a lane in the checkpoint, before the first send: the next term looks there."""
        # A save that is under way does not know of this lane yet, and must not write after it.
        self.wait()
        self._marks[topic] = mark
        self._store.declare_lanes(self._marks)

    # --- trust -------------------------------------------------------------------------------

    def renew_trust(self) -> None:
        """Note that whose term it is was just settled: by MongoDB, or by the fence of a lane."""
        self._confirmed = time.monotonic()

    def require_trust(self) -> None:
        """Make sure that this term is still the newest, by asking where that is long ago.

        Raises:
            Superseded: it is not.

        """
        if time.monotonic() - self._confirmed > TRUST_SECONDS:
            self.confirm()

    def confirm(self) -> None:
        """Ask whether this term is still the newest.

        Raises:
            Superseded: it is not.

        """
        self._store.confirm()
        self.renew_trust()

    # --- saving ------------------------------------------------------------------------------

    def stored(self, chunk: Chunk) -> None:
        """Note that a chunk, and all before it, is stored."""
        self._marks_without_point.update(chunk.marks)
        if chunk.rows:
            self._last_id = chunk.last_id
        if chunk.point is not None:
            # Nothing can go on from the middle of a batch that a row blocks.
            self._new_marks.update(self._marks_without_point)
            self._marks_without_point.clear()
            self._stored = (chunk.point, Position(chunk.position))

    def mark(self, topic: Topic, message_id: Mark) -> None:
        """Move a lane's mark with the next save, as if something of ours had been stored there."""
        self._marks_without_point[topic] = message_id

    def patience(self) -> float:
        """Return for how many seconds nothing has to be saved."""
        if self._stored is None or self._saving is not None:
            return LONGEST_WAIT_SECONDS
        due = self._saved + self._interval_now()
        return max(0.0, min(LONGEST_WAIT_SECONDS, due - time.monotonic()))

    def save_if_due(self) -> None:
        """Begin to write the checkpoint if there is news and the last one is old enough."""
        if self._stored is None or self._saving is not None:
            return
        if time.monotonic() - self._saved >= self._interval_now():
            self._save(*self._stored)

    def _interval_now(self) -> float:
        return self._idle_interval if self._last_id is None else self._interval

    def save_all(self) -> None:
        """Write what there is, and wait for it."""
        self.wait()
        if self._stored is not None:
            self._save(*self._stored)
        self.wait()

    def _save(self, point: Point, position: Position) -> None:
        marks, self._new_marks = self._new_marks, {}
        last_id, self._last_id = self._last_id, None
        saving = self._saving = Saving(marks, position, point.cluster_time, time.monotonic())
        self._stored = None
        self._saved = saving.began
        write = functools.partial(
            self._store.save,
            point,
            position=position,
            last_id=last_id,
            lanes={**self._marks, **marks},
        )
        # A thread for each, a few a second: one that MongoDB holds up keeps no process from ending.
        threading.Thread(
            target=self._write, args=(saving, write), name="relay-checkpoint", daemon=True
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
        """Take note of a write that has ended; raises what it failed with."""
        if saving is not self._saving:
            return  # it was waited for already
        self._saving = None
        if saving.error is not None:
            raise saving.error
        self._marks.update(saving.marks)
        self._observer.tell(
            facts.CheckpointWritten(
                partition=self._partition,
                position=saving.position,
                cluster_time=saving.cluster_time,
                seconds=saving.ended - saving.began,
            )
        )
        # What the server said is as old as the question.
        self._confirmed = saving.began

    def wait(self) -> None:
        """Wait until no write is under way.

        Raises:
            TermEnded: MongoDB took too long.

        """
        saving = self._saving
        if saving is None:
            return
        if not saving.done.wait(LONGEST_WRITE_SECONDS):
            raise errors.TermEnded(
                "MongoDB did not confirm a checkpoint in time; a new term begins"
            )
        self.finished(saving)
