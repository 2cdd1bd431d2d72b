"""Jitter: waits that differ, so that those who wait for the same do not all come back at once."""

from __future__ import annotations

from random import SystemRandom

__all__ = ["around", "between"]

# Python's own generator belongs to the application, which may seed it for what it wants to see
# again. This one has no state: forked children do not all wait alike either. Safe from any thread.
_drawn = SystemRandom()


def around(seconds: float, *, by: float) -> float:
    """Return a wait near this one: up to a part of it shorter, or longer; 0.2 is a fifth."""
    return seconds * _drawn.uniform(1 - by, 1 + by)


def between(least: float, most: float) -> float:
    """Return a wait that is no shorter than the one, and no longer than the other."""
    return _drawn.uniform(least, most)
