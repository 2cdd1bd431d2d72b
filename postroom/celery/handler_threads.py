"""Handler threads: where handlers run. One that hangs is replaced, and ends should it come back."""

from __future__ import annotations

import enum
import logging
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HandlerThreads", "Turn"]

logger = logging.getLogger(__name__)


# One that hangs costs a stack, and may come back. With fewer of them events that hang at each
# attempt would end worker after worker, and never be given up.
MOST_HUNG, MOST_HUNG_A_THREAD = 64, 8


class TurnStage(enum.Enum):
    """How far a turn has come."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    REPLACED = enum.auto()  # it hangs: another thread has taken the place of its own
    OVER = enum.auto()


def _nothing() -> None:
    pass


@dataclass(eq=False, kw_only=True)
class Turn:
    """Something to run in a thread, and to call there afterwards, whatever came of it.

    Its stage belongs to the lock of the HandlerThreads that it was handed to.
    """

    run: Callable[[], object] = _nothing
    done: Callable[[], None]
    stage: TurnStage = TurnStage.WAITING

    def let_go(self) -> None:
        """Forget what was to be called, which has the turn itself and all that the job had.

        Else Python's collector would have to find them, and of thousands of jobs it waits for more.
        """
        self.run = self.done = _nothing


class HandlerThreads:
    """A fixed number of threads that take turns in the order in which they were handed in.

    Celery's own pool cannot do without a thread: one more than it was made with comes at its next
    task at the earliest, and stays. Here no more than `limit` turns run side by side, but for those
    that were replaced. Thread-safe.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.most_hung = max(MOST_HUNG, MOST_HUNG_A_THREAD * limit)
        self._waiting: queue.SimpleQueue[Turn | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._replaced = 0
        for _ in range(limit):
            self._start()

    @property
    def hung(self) -> int:
        """How many threads hang in a turn that was given up."""
        with self._lock:
            return self._replaced

    def submit(self, turn: Turn) -> None:
        """Have a turn run as soon as a thread is free."""
        self._waiting.put(turn)

    def withdraw(self, turn: Turn) -> bool:
        """Take a turn back that no thread has begun, and say whether that was in time.

        Neither it nor its `done` is called then.
        """
        return self._move(turn, TurnStage.WAITING, TurnStage.OVER)

    def replace(self, turn: Turn) -> bool:
        """Put another thread in the place of one that hangs, and say whether it still did."""
        with self._lock:
            if turn.stage is not TurnStage.RUNNING:
                return False
            self._start()
            turn.stage = TurnStage.REPLACED
            self._replaced += 1
            return True

    def is_replaced(self, turn: Turn) -> bool:
        """Say whether a turn hangs, and another thread has taken the place of its own."""
        with self._lock:
            return turn.stage is TurnStage.REPLACED

    def stop(self) -> None:
        """Have the threads end when they are free; returns at once."""
        for _ in range(self.limit):
            self._waiting.put(None)

    def _start(self) -> None:
        # Daemons: one that hangs must not keep the process from ending.
        threading.Thread(target=self._work, name="handler", daemon=True).start()

    def _move(self, turn: Turn, before: TurnStage, after: TurnStage) -> bool:
        with self._lock:
            if turn.stage is not before:
                return False
            turn.stage = after
            return True

    def _work(self) -> None:
        while self._take_turn():
            pass

    def _take_turn(self) -> bool:
        # A function of its own, so that a thread that waits for the next turn holds no last one.
        turn = self._waiting.get()
        if turn is None:
            return False
        if not self._move(turn, TurnStage.WAITING, TurnStage.RUNNING):
            turn.let_go()
            return True
        _guarded(turn.run)
        with self._lock:
            was_replaced = turn.stage is TurnStage.REPLACED
            self._replaced -= was_replaced
            turn.stage = TurnStage.OVER
        _guarded(turn.done)
        turn.let_go()
        return not was_replaced


def _guarded(call: Callable[[], object]) -> None:
    try:
        call()
    except BaseException:
        # What a handler raises ends up in its task, and does not come here.
        logger.exception("Celery failed around a handler")
