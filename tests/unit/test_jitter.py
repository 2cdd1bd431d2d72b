"""Jitter: waits that differ, and leave Python's own random generator as it is."""

from __future__ import annotations

import random
import subprocess
import sys

from postroom import jitter

DRAWS = 200


def test_a_wait_is_near_the_one_that_was_asked_for() -> None:
    """A fifth shorter or longer at most; and it is not always the same one."""
    waits = [jitter.around(10.0, by=0.2) for _ in range(DRAWS)]
    assert 8.0 <= min(waits) < 9.5
    assert 10.5 < max(waits) <= 12.0
    assert {jitter.around(10.0, by=0.0)} == {10.0}


def test_a_wait_is_between_two() -> None:
    """Anywhere there; where both are the same it is that."""
    waits = [jitter.between(0, 4.0) for _ in range(DRAWS)]
    assert 0 <= min(waits) < 1.0
    assert 3.0 < max(waits) <= 4.0
    assert jitter.between(3.0, 3.0) == 3.0


def test_the_applications_generator_is_not_drawn_from() -> None:
    """Whoever has seeded it gets what he expects, and seeding it makes no two waits alike."""
    before = random.getstate()
    jitter.around(1.0, by=0.5)
    jitter.between(0, 1)
    assert random.getstate() == before
    random.seed(7)
    first = jitter.between(0, 1)
    random.seed(7)
    assert jitter.between(0, 1) != first
    random.setstate(before)


FORKING = """
import os
from postroom import jitter
for _ in range(3):
    if not os.fork():
        print(jitter.between(0, 1), flush=True)
        os._exit(0)
    os.wait()
"""


def test_forked_children_do_not_wait_alike() -> None:
    """A pool's processes were one, and what they draw is their own."""
    # Not forked here: a test run has threads.
    command = [sys.executable, "-c", FORKING]
    drawn = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert len(set(drawn)) == 3
