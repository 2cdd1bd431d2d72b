"""Headroom: calls cost the same however deeply they are nested."""

from __future__ import annotations

import resource
import threading
from typing import TYPE_CHECKING

import pytest

from postroom.celery.headroom import with_headroom

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 200
DEPTHS = range(0, 500, 5)


def _nested(depth: int) -> None:
    if depth:
        _nested(depth - 1)
        return
    for _ in range(CALLS):
        _leaf()


def _leaf() -> None:
    for _ in range(8):
        _nothing(*range(8))


def _nothing(*_: int) -> None:
    pass


def _worst(run: Callable[[Callable[[], None]], None]) -> int:
    """Return how many page faults the depth took that took most, in a thread of its own."""
    faults: list[int] = []

    def measure() -> None:
        for depth in DEPTHS:
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
            _nested(depth)
            faults.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

    thread = threading.Thread(target=run, args=(measure,))
    thread.start()
    thread.join()
    return max(faults)


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_THREAD"), reason="counts faults by thread")
def test_calls_that_are_nested_deeply_take_no_new_stack_each() -> None:
    """With headroom no depth makes each call map a piece of stack; without some do."""
    assert _worst(with_headroom) < CALLS
    assert _worst(lambda measure: measure()) >= CALLS
