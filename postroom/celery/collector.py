"""Collector: Python's collector of cycles, kept from walking what is part of none."""

from __future__ import annotations

import gc

__all__ = ["spare"]


def spare(threshold: int) -> None:
    """Have what was loaded so far never be walked again, and what comes less often.

    `threshold` is how many more objects there have to be than at the last time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(threshold, 20, 100)
