"""Call: one run of a job, seen from several threads."""

from __future__ import annotations

import enum
import math
import threading
import time
from typing import TYPE_CHECKING, Any

from postroom import errors
from postroom.inbox.handling.outcome import Lost, Outcome

if TYPE_CHECKING:
    from postroom.inbox.handling.standstill import Standstill

__all__ = ["Call", "Stage"]


class Stage(enum.Enum):
    """Where a call is; the value ends the sentence that says so."""

    RECEIVERS = "in Celery before the handler, in a receiver of task_received or _prerun perhaps"
    PREPARING = "while the event is validated"
    INBOX = "while MongoDB takes the inbox row"
    HANDLER = "in the handler"
    WRITES = "while MongoDB takes what the handler has returned"
    COMMIT = "while MongoDB commits"
    AFTER = "in what the handler does after its commit"
    ENDING = "in Celery after the handler, in a receiver of task_postrun perhaps"


LOST = Lost()


class Call:
    """One run of a job: its thread says where it is, the dispatcher's may cut it off.

    Either may end it unrun, where the task was revoked; the thread that ends its transaction
    cuts it off again. Thread-safe, and the only thing of a job that changes: a lock holds all of it
    but the Standstill, which has its own. Its time runs from the moment at which a thread takes the
    job, and anew for each event of a group, whose turn it then is.
    """

    def __init__(
        self, limit_seconds: float = math.inf, *, standstill: Standstill | None = None
    ) -> None:
        self.limit_seconds = limit_seconds
        self._standstill = standstill
        self._lock = threading.Lock()
        self._began: float | None = None
        self._turn = 0
        self._turn_began = 0.0
        self._stage = Stage.RECEIVERS
        self._is_cut_off = False
        self._session_id: Any = None
        self._outcome: Outcome = LOST

    def begin(self) -> None:
        """Note that a thread has taken the job."""
        with self._lock:
            self._began = self._turn_began = time.monotonic()

    def enter(self, stage: Stage, *, turn: int | None = None) -> None:
        """Go on to a stage, if there is time; with `turn`, for that event of a group.

        Raises:
            HandlerTimeout: it was cut off; the event has been handed back, or is with another call.

        """
        with self._lock:
            if self._is_cut_off:
                raise errors.HandlerTimeout("The handler's time was up before it was done")
            self._stage = stage
            if turn is not None:
                self._turn, self._turn_began = turn, time.monotonic()

    def opened(self, session_id: Any) -> None:
        """Note the session whose transaction must end when the call is cut off."""
        with self._lock:
            self._session_id = session_id

    def end(self, outcome: Outcome) -> None:
        """Note what came of it; only Celery's own work is left."""
        with self._lock:
            self._outcome, self._stage = outcome, Stage.ENDING

    def cut_off(self) -> Any:
        """Let it enter no further stage; return the id of its session, or None."""
        with self._lock:
            self._is_cut_off = True
            return self._session_id

    @property
    def seconds(self) -> float:
        """For how long a thread has had the job, less what the process stood still."""
        with self._lock:
            began = self._began
        return 0.0 if began is None else self.seconds_since(began)

    def seconds_since(self, began: float) -> float:
        """Return how long it is since a monotonic time, less what the process stood still."""
        passed = time.monotonic() - began
        return passed if self._standstill is None else passed - self._standstill.stood_still(began)

    def within(self, seconds: float) -> float:
        """Return so many seconds, or how long it may go on where that is less."""
        with self._lock:
            began, has_begun = self._turn_began, self._began is not None
        if not has_begun:
            return min(seconds, self.limit_seconds)
        if self.limit_seconds - (time.monotonic() - began) >= seconds:
            return seconds  # whether or not the process stood still
        return min(seconds, self.limit_seconds - self.seconds_since(began))

    @property
    def turn(self) -> int:
        """Which event of a group it is at, counted from 0."""
        with self._lock:
            return self._turn

    @property
    def has_begun(self) -> bool:
        """Whether a thread has taken the job."""
        with self._lock:
            return self._began is not None

    @property
    def is_overdue(self) -> bool:
        """Whether it runs for longer than it may."""
        return self.within(0.0) < 0

    @property
    def stage(self) -> Stage:
        """Where it is, or was when it failed."""
        with self._lock:
            return self._stage

    @property
    def is_cut_off(self) -> bool:
        """Whether the call may do nothing more."""
        with self._lock:
            return self._is_cut_off

    @property
    def outcome(self) -> Outcome:
        """What came of it; Lost for as long as that is not known."""
        with self._lock:
            return self._outcome
