"""Deferred: what a function returns instead of doing its work."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import AsyncIterator, Generator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["is_deferring", "require_done"]

# What Python itself returns in place of work that is done when it is asked for.
LAZY = (
    *(map, filter, zip, itertools.chain, itertools.islice, itertools.starmap),
    *(itertools.takewhile, itertools.dropwhile, itertools.filterfalse),
)
_CACHED = functools._lru_cache_wrapper  # noqa: SLF001 - what lru_cache() returns has no other name


def is_deferring(function: Callable[..., object]) -> bool:
    """Say whether a call of a function or callable object does nothing yet.

    It is async or a generator then.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, _CACHED):
        # Alone among those that wrap another it calls just that; others may run what they await.
        return is_deferring(function.__wrapped__)
    # What an object is called by belongs to its class, or to one that it inherits from.
    inner = getattr(type(function), "__call__", None)  # noqa: B004 - not whether, but by what
    return any(
        is_lazy(each)
        for each in (function, inner)
        for is_lazy in (
            inspect.iscoroutinefunction,
            inspect.isgeneratorfunction,
            inspect.isasyncgenfunction,
        )
    )


def require_done(returned: object, *, who: str) -> None:
    """Refuse what has yet to be run, awaited or waited for: nobody here does.

    Raises:
        NothingDone: it is such a thing.

    """
    kinds = (Generator, AsyncIterator, Future, *LAZY)
    if not isinstance(returned, kinds) and not inspect.isawaitable(returned):
        return
    if inspect.iscoroutine(returned) or isinstance(returned, Generator):
        returned.close()  # or Python would complain that it was never awaited
    raise errors.NothingDone(
        f"{who} has returned a {type(returned).__name__}, which nobody awaits or waits for: what "
        "it was to do was not done. Do the work before returning, by asyncio.run() for one"
    )
