"""Headroom: a stack in one piece for calls that are nested deeply."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["with_headroom"]

T = TypeVar("T")

# In words: 512 KiB are taken for it, half of which are left. Python's 1,000 calls fit in there.
FRAME = 33_000


def with_headroom(call: Callable[[], T]) -> T:
    """Make a call, and whatever it calls, on one piece of the interpreter's stack.

    CPython's stack of frames grows by pieces of 16 KiB, and a piece is unmapped as soon as the call
    that was first in it returns: where a loop of calls happens to stand at the end of one, each is
    a mmap, page faults and a munmap. A group's tasks run one within another, so that some of them
    always stand there: three page faults an event. A frame so large takes a piece of its own,
    and the calls behind it have the rest. What is never touched takes no memory.
    """
    return call()


with_headroom.__code__ = with_headroom.__code__.replace(co_stacksize=FRAME)
