"""Collector: Python's collector of cycles, kept from walking what is part of none."""

from __future__ import annotations

import gc

__all__ = ["spare"]

# Of 3.11 and 3.12, and of later ones.
PYTHONS_OWN = frozenset({(700, 10, 10), (2000, 10, 10), (2000, 10, 0)})


def spare(threshold: int) -> None:
    """Have what was loaded so far never be walked again, and what comes less often.

    `threshold` is how many more objects there have to be than at the last time. Where the
    application has set thresholds of its own they stay.
    """
    gc.collect()
    gc.freeze()
    # How many a full collection found is what the next one has to be worth.
    gc.collect()
    _, *older = found = gc.get_threshold()
    if found in PYTHONS_OWN:
        # The older generations as often as ever: cycles of a handler's may hold large buffers.
        gc.set_threshold(threshold, *older)
