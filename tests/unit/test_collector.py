"""Python's collector of cycles in workers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from postroom.celery.consumer_step import MOST_UNWALKED

BEGINNING = f"""
import collections, gc, weakref
from postroom.celery import collector
collector.spare({MOST_UNWALKED})
assert gc.get_freeze_count() > 1000, gc.get_freeze_count()
assert gc.isenabled() and gc.get_threshold()[0] == {MOST_UNWALKED}
"""

LATER_CYCLES = """
class Node: pass
gone = []
for _ in range(20_000):
    node = Node()
    node.itself = node
    weakref.finalize(node, gone.append, 1)
del node
assert gone, "cycles that are made afterwards are still collected by themselves"
"""

# As large as a document may be, in the frame of a traceback that its own frame holds.
LARGE_CYCLES = """
class Document(bytearray): pass
there, most = set(), 0
def handle(number):
    document = Document(1 << 20)
    there.add(number)
    weakref.finalize(document, there.discard, number).atexit = False
    try:
        raise ValueError
    except ValueError as error:
        kept = error
    return kept
under_way = collections.deque(maxlen=8)
for number in range(30_000):
    under_way.append(handle(number))
    most = max(most, len(there))
assert most < 1024, f"{most} MiB"
"""


@pytest.mark.parametrize(
    "program", [pytest.param(LATER_CYCLES, id="small"), pytest.param(LARGE_CYCLES, id="large")]
)
def test_what_was_loaded_is_walked_no_more_and_later_cycles_are_collected(program: str) -> None:
    """A worker's collector leaves what was there at its start alone, and goes on with the rest.

    What handlers leave in cycles stays within the memory that docs/continuity.md asks for.
    """
    subprocess.run([sys.executable, "-c", BEGINNING + program], check=True)


def test_thresholds_of_the_applications_own_stay() -> None:
    """Who set them knows what its handlers leave; what was loaded is left alone all the same."""
    program = "\n".join(
        [
            "import gc",
            "gc.set_threshold(500, 5, 5)",
            "from postroom.celery import collector",
            f"collector.spare({MOST_UNWALKED})",
            "assert gc.get_threshold() == (500, 5, 5)",
            "assert gc.get_freeze_count() > 1000",
        ]
    )
    subprocess.run([sys.executable, "-c", program], check=True)
