"""Call: one run of a job, seen from two threads."""

from __future__ import annotations

import enum
import threading
import time
from typing import Any

from postroom import errors
from postroom.inbox.outcome import Lost, Outcome

__all__ = ["Call", "Stage"]


class Stage(enum.Enum):
    """Where a call is; the value says it in a sentence that ends with it."""

    RECEIVERS = "in Celery, before the handler: a receiver of task_prerun, perhaps"
    PREPARING = "while the event was validated"
    INBOX = "while the inbox row was written"
    HANDLER = "in the handler"
    COMMIT = "while the transaction was committed"
    ENDING = "in Celery, after the handler: a receiver of task_postrun, perhaps"


class Call:
    """One run of a job: its thread says where it is, the dispatcher's may cut it off.

    Thread-safe, and the only thing of a job that changes: a lock holds all of it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began: float | None = None
        self._stage = Stage.RECEIVERS
        self._is_cut_off = False
        self._session_id: Any = None
        self._outcome: Outcome = Lost()

    def begin(self) -> None:
        """Note that a thread has taken the job: its time runs from now on."""
        with self._lock:
            self._began = time.monotonic()

    def enter(self, stage: Stage) -> None:
        """Go on to a stage, if there is time.

        Raises:
            HandlerTimeout: it was cut off; the event has been handed back, or is with another call.

        """
        with self._lock:
            if self._is_cut_off:
                raise errors.HandlerTimeout("The handler's time was up before it was done")
            self._stage = stage

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

    def overdue(self, limit_seconds: float) -> Stage | None:
        """Say where it is, if it has run for longer than this."""
        with self._lock:
            late = self._began is not None and time.monotonic() - self._began > limit_seconds
            return self._stage if late else None

    @property
    def has_begun(self) -> bool:
        """Whether a thread has taken the job."""
        with self._lock:
            return self._began is not None

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
