"""Handlers of one test alone: those that it registers are gone at its end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from postroom.inbox.handling.handlers import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.inbox.handling.handlers import Registry

__all__ = ["own_handlers"]


@contextlib.contextmanager
def own_handlers() -> Iterator[Registry]:
    """Lend the registry, and put back what was registered before."""
    before = dict(registry.handlers)
    yield registry
    registry.handlers.clear()
    registry.handlers.update(before)
    registry._found.clear()
