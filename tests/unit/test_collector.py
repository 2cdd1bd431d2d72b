"""Python's collector of cycles in workers."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from postroom.celery import collector
collector.spare(10_000)
assert gc.get_freeze_count() > 1000, gc.get_freeze_count()
assert gc.isenabled() and gc.get_threshold()[0] == 10_000
class Node: pass
gone = []
import weakref
for _ in range(20_000):
    node = Node()
    node.itself = node
    weakref.finalize(node, gone.append, 1)
del node
assert gone, "cycles that are made afterwards are still collected by themselves"
"""


def test_what_was_loaded_is_walked_no_more_and_later_cycles_are_collected() -> None:
    """A worker's collector leaves what was there at its start alone, and goes on with the rest."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
