"""Question threads: a few threads for what blocks, so that Flower's own loop never does."""

from __future__ import annotations

import asyncio
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Busy", "QuestionThreads"]

T = TypeVar("T")

MOST_THREADS, MOST_WAITING = 4, 16
ANSWER_SECONDS = 30.0


class Busy(errors.PostroomError):
    """So many questions are under way that no more are taken, or one took too long."""


class QuestionThreads:
    """Has questions answered in four threads, sixteen at a time; asked by Flower's loop alone."""

    def __init__(self) -> None:
        self._room = threading.BoundedSemaphore(MOST_WAITING)
        self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="outbox-page")

    async def ask(self, question: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Have a question answered in a thread, for some seconds.

        Raises:
            Busy: too many are under way, or this one is not answered in time.

        """
        if not self._room.acquire(blocking=False):
            raise Busy(f"{MOST_WAITING} questions wait for an answer already; ask again later")
        asked = self._threads.submit(functools.partial(question, *args, **kwargs))
        asked.add_done_callback(lambda _: self._room.release())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked), ANSWER_SECONDS)
        except TimeoutError:
            raise Busy(f"There was no answer within {ANSWER_SECONDS:.0f} seconds") from None
