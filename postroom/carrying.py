"""Carrying: headers that every event has which is published within a block, such as a request."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["carried", "carrying"]

NOTHING: Mapping[str, str] = {}
_headers: ContextVar[Mapping[str, str]] = ContextVar("postroom-headers", default=NOTHING)


@contextlib.contextmanager
def carrying(headers: Mapping[str, str]) -> Iterator[None]:
    """Have all events that are published within the block carry these headers.

    In the tasks that the block starts as well, and wherever its context is copied to. Blocks within
    add theirs; what publish() is given, and the trace that tracing continues, win over them.
    """
    token = _headers.set({**_headers.get(), **headers})
    try:
        yield
    finally:
        _headers.reset(token)


def carried() -> Mapping[str, str]:
    """Return the headers of the blocks around."""
    return _headers.get()
