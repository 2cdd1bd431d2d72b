"""Placement: a job in the handler threads, as the dispatcher may withdraw or abandon it."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING

from postroom import tracing
from postroom.celery import adapter
from postroom.celery.handler_threads import HandlerThreads, Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postroom.celery.errand import Errand
    from postroom.inbox.handling.outcome import Outcome

__all__ = ["Placement"]

UNDONE = "Undone: another event of its group ran for too long"


class Placement:
    """A job in the handler threads, and the requests of its tasks: one, or one for each member.

    Its fields are fixed before a thread can take it.
    """

    def __init__(
        self,
        errand: Errand,
        requests: Sequence[adapter.EventRequest],
        threads: HandlerThreads,
        *,
        done: Callable[[Outcome], None],
        too_many_hang: Callable[[int], None],
    ) -> None:
        self._errand = errand
        self._requests = requests
        self._threads = threads
        self._done = done
        self._too_many_hang = too_many_hang
        self._turn = Turn(done=self.end)

    def submit(self, call: Callable[[], object]) -> None:
        """Have a call made in a thread: Celery's own for the request, or one that makes several."""
        self._turn.run = functools.partial(self._run, call)
        self._threads.submit(self._turn)

    def withdraw(self) -> bool:
        """Take the job back if no thread has begun it, and say whether that was in time."""
        if not self._threads.withdraw(self._turn):
            return False
        self._forget()
        return True

    def is_hung(self) -> bool:
        """Say whether a thread is in it still, although it was abandoned."""
        return self._threads.is_replaced(self._turn)

    def abandon(
        self, reason: str, *, hangs: bool, over: Callable[[bool], None] | None = None
    ) -> bool:
        """Show the job as failed and put another thread in the place of its own, if it still runs.

        `hangs` where it is at fault itself. `over` is told whether MongoDB has answered to the end
        of its transaction; only then is that certain.
        """
        if not self._threads.replace(self._turn):
            return False
        self._errand.job.call.cut_off()
        # In a thread: MongoDB may be what it hangs on.
        threading.Thread(target=tracing.silently(self._cut_off), args=(over,), daemon=True).start()
        turn = self._errand.job.call.turn
        for request in self._requests[:turn]:
            request.send_event("task-retried", exception=UNDONE, traceback="")
        self._requests[turn].send_event("task-failed", exception=reason, traceback="")
        for request in self._requests:
            request.mute()
        hung = self._threads.hung
        if hangs and hung > self._threads.most_hung:
            self._too_many_hang(hung)
        return True

    def _cut_off(self, over: Callable[[bool], None] | None) -> None:
        answered = self._errand.consumer.cut_off(self._errand.job)
        if over is not None:
            over(answered)

    def _run(self, call: Callable[[], object]) -> None:
        self._errand.job.call.begin()
        call()

    def end(self) -> None:
        """Say what came of it, and forget its requests."""
        self._forget()
        self._done(self._errand.job.call.outcome)

    def _forget(self) -> None:
        for request in self._requests:
            adapter.forget(request)
