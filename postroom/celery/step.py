"""Step: what a relay's and a consumer's part of a worker have in common: threads, and their end.

All of how a worker stops is here: Celery's signal, the steps' threads, and a process that hangs.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from celery import bootsteps, signals

from postroom import errors, tracing
from postroom.celery import adapter
from postroom.celery.inheritance import withhold_from_children

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery

__all__ = ["EXIT_FAILURE", "HUNG_GRACE_SECONDS", "Step", "end_worker", "install"]

logger = logging.getLogger(__name__)

EXIT_FAILURE = 1
# How long a worker that ends for an error may take beyond POSTROOM_SHUTDOWN_SECONDS.
GRACE_SECONDS = 5.0
# How long Celery's own end may take behind that of a step some thread of which hangs.
HUNG_GRACE_SECONDS = 2.0
# How long Celery may take to come to our part of a shutdown, once that is done.
CELERYS_SECONDS = 4.0

_running: list[Step] = []


def install() -> None:
    """Have the steps that run learn of a shutdown before Celery comes to them."""
    signals.worker_shutting_down.connect(_hurry, weak=False, dispatch_uid="postroom-stop")


def _hurry(**_: Any) -> None:
    # Within the operating system's signal handler: a lock taken here could be held by the very
    # code that was interrupted, so another thread does it. The mutex is free that much earlier.
    for step in _running:
        threading.Thread(target=step.hurry, name="postroom-hurry", daemon=True).start()


def end_worker(app: Celery, reason: str, *, cause: BaseException | None = None) -> None:
    """Have the worker stop as on TERM, but with exit code 1, and by force if it does not.

    A worker that answers pings and does nothing would be the worst of all.
    """
    logger.critical("%s", reason, exc_info=cause)
    adapter.ask_to_end(EXIT_FAILURE)
    _exit_after(app.postroom.settings.shutdown_seconds + GRACE_SECONDS, EXIT_FAILURE)


def _exit_after(seconds: float, code: int) -> None:
    last_resort = threading.Timer(seconds, os._exit, args=(code,))
    last_resort.daemon = True
    last_resort.start()


class Step(bootsteps.StartStopStep):
    """A part of the worker, not of its consumer: that one stands still while Redis is away.

    Its threads run until they are asked to stop, and one that dies takes the worker down. Made and
    stopped by the main thread; hurry() runs in a thread of its own, and asks to stop in it. A
    relay's begin() may come from a timer's thread, and a crew's thread begins threads and ends
    them, so a lock holds which there are.
    """

    requires = (adapter.POOL,)
    # How long the threads may take to end beyond POSTROOM_SHUTDOWN_SECONDS.
    grace_seconds = 0.0

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.app = worker.app
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._reached = threading.Event()

    def ask_to_stop(self) -> None:
        """Have the threads end; returns at once."""
        raise NotImplementedError

    def stopped(self, late: Sequence[str]) -> int | None:
        """Look after what is left when the threads have ended, but for those that are `late`.

        Returns the exit code where something hangs that could keep the process from ending.
        """
        raise NotImplementedError

    def stop(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Have the threads end and wait for that, for a bounded time; by force where one hangs."""
        self.ask_to_stop()
        self._reached.set()
        if self in _running:
            _running.remove(self)
        code = self.stopped(self._join())
        if code is not None:
            _exit_after(HUNG_GRACE_SECONDS, code)

    # A cold shutdown may cut tasks short, but neither a checkpoint nor what is handed back.
    terminate = stop

    def run_in_thread(self, name: str, run: Callable[[], object]) -> threading.Thread:
        """Start a thread whose end by an error is the worker's, and return it."""
        thread = threading.Thread(
            target=tracing.silently(self._run), args=(name, run), name=name, daemon=True
        )
        with self._lock:
            thread.start()
            self._threads.append(thread)
        return thread

    def end_of(self, name: str) -> None:
        """Wait, for a bounded time, for the end of a thread that nothing is expected of."""
        for thread in [each for each in self._alive() if each.name == name]:
            thread.join(self.app.postroom.settings.shutdown_seconds)

    def _run(self, name: str, run: Callable[[], object]) -> None:
        try:
            run()
        except errors.ConfigurationError as error:
            end_worker(self.app, str(error))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the worker must not live on
            kind = name.partition("-")[0]
            end_worker(self.app, f"The {kind} thread died; the worker ends with it", cause=error)

    def watch(self) -> None:
        """Be told of a shutdown from now on, here and in no process that is forked off."""
        _running.append(self)
        withhold_from_children(_running.clear)

    def hurry(self) -> None:
        """Stop before Celery comes to it, and end the process where Celery does not come.

        A Redis that hangs keeps Celery's main thread in a call for a minute, longer than most that
        send TERM wait until they kill.
        """
        self.ask_to_stop()
        late = self._join()
        if self._reached.wait(CELERYS_SECONDS):
            return
        logger.warning(
            "The worker has finished, and ends without Celery, which waits for its broker"
        )
        logging.shutdown()
        os._exit(EXIT_FAILURE if late else adapter.exit_code())

    def _join(self) -> list[str]:
        """Wait for the threads to end, for a bounded time, and name those that did not."""
        patience = self.app.postroom.settings.shutdown_seconds + self.grace_seconds
        deadline = time.monotonic() + patience
        while alive := self._alive():
            if (left := deadline - time.monotonic()) <= 0:
                return [thread.name for thread in alive]
            alive[0].join(left)
        return []

    def _alive(self) -> list[threading.Thread]:
        with self._lock:
            self._threads = [each for each in self._threads if each.is_alive()]
            return list(self._threads)
