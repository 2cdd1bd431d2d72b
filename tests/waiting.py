"""Waiting for something instead of for a while."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


def wait_until(
    predicate: Callable[[], Result], *, description: str, seconds: float = 30.0
) -> Result:
    """Return what the predicate returns as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := predicate()):
        if time.monotonic() > end:
            raise AssertionError(f"Not so within {seconds:.0f} s: {description}")
        threading.Event().wait(0.05)
    return found
