"""Ownership: which threads call what is said to be one thread's."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Ownership", "owned"]

ROOMS = ("postroom.relay", "postroom.inbox", "postroom.store")
# As docstrings say it.
OWNED = re.compile(
    r"(?:term's|relay's|mover's|pool's|its) thread\s+alone|used by the term's thread"
    r"|both in the term's thread|[Tt]he dispatcher's own|[Uu]sed by one thread|runs it alone"
)
# And what they say others may call.
FREE = {"Lag": {"seconds"}, "Steward": {"is_pinned", "would_take"}}


def owned() -> Iterator[type[Any]]:
    """Yield the classes whose docstrings say that they are one thread's."""
    for room in ROOMS:
        for found in pkgutil.walk_packages(importlib.import_module(room).__path__, f"{room}."):
            module = importlib.import_module(found.name)
            for value in vars(module).values():
                is_own = inspect.isclass(value) and value.__module__ == found.name
                if is_own and OWNED.search(value.__doc__ or ""):
                    yield value


class Ownership:
    """Notes for each object of such a class which threads have called its public methods."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # With the object, so that no other one gets its id.
        self._seen: dict[int, tuple[Any, dict[threading.Thread, str]]] = {}

    def watch(self, kind: type[Any]) -> None:
        """Watch all objects of a class, from now on."""
        free = FREE.get(kind.__name__, set())
        for name, value in list(vars(kind).items()):
            if name.startswith("_") or name in free:
                continue
            if inspect.isfunction(value):
                setattr(kind, name, self._noting(name, value))
            elif isinstance(value, property) and value.fget is not None:
                setattr(kind, name, property(self._noting(name, value.fget), value.fset))

    def _noting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def noting(this: Any, *args: Any, **options: Any) -> Any:
            thread = threading.current_thread()
            with self._lock:
                _, threads = self._seen.setdefault(id(this), (this, {}))
                threads.setdefault(thread, name)
            return call(this, *args, **options)

        return noting

    @property
    def kinds(self) -> list[str]:
        """The classes of which anything was called."""
        with self._lock:
            return sorted({type(this).__name__ for this, _ in self._seen.values()})

    @property
    def broken(self) -> list[str]:
        """What several threads have called, with the first call of each."""
        with self._lock:
            return [
                f"{type(this).__name__}: "
                + ", ".join(f"{name} by {thread.name}" for thread, name in threads.items())
                for this, threads in self._seen.values()
                if len(threads) > 1
            ]
