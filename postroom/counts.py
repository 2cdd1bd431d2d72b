"""Counts that are cut short: how one says that there may be more."""

from __future__ import annotations

__all__ = ["bound"]


def bound(*, more: bool) -> str:
    """Return what stands before a number, which is all of them unless there may be `more`."""
    return "at least " if more else ""
