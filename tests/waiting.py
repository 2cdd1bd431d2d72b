"""Waiting for something instead of for a while."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Not a promise of the product: on a machine with other work the start of a worker alone takes half
# a minute. Where a time is a promise, a test says it.
PATIENCE_SECONDS = 90.0

Result = TypeVar("Result")


def wait_until(
    predicate: Callable[[], Result], *, description: str, seconds: float = PATIENCE_SECONDS
) -> Result:
    """Return what the predicate returns as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := predicate()):
        if time.monotonic() > end:
            raise AssertionError(f"Not so within {seconds:.0f} s: {description}")
        threading.Event().wait(0.05)
    return found


@contextlib.contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Have a thread do something while the block runs; the event that it gets tells it to end."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
