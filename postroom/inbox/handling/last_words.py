"""Last words: a handler that ends its process says so before it does."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["install", "speaking"]

_own_exit = os._exit
_thread = threading.local()
_pid: int | None = None


def install() -> None:
    """Have os._exit() say the last words of the thread that calls it; once for a process.

    Nothing else tells a process that ends itself from one that an operator or the kernel kills. In
    a child that a handler has forked os._exit() is the usual end, and means nothing.
    """
    global _pid  # noqa: PLW0603 - os._exit is the process's as well
    _pid = os.getpid()
    os._exit = _exit


class speaking:  # noqa: N801 - used as a verb
    """Have these called should this thread end the process within the block."""

    __slots__ = ("_words",)

    def __init__(self, words: Callable[[], object]) -> None:
        self._words = words

    def __enter__(self) -> None:
        _thread.words = self._words

    def __exit__(self, *_: object) -> None:
        _thread.words = None


def _exit(status: int) -> NoReturn:
    words: Callable[[], object] | None = getattr(_thread, "words", None)
    if words is not None and os.getpid() == _pid:
        # Whatever comes of it, the process was asked to end.
        with contextlib.suppress(BaseException):
            words()
    _own_exit(status)
