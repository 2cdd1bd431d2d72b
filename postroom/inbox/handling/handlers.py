"""Handlers: which function does what with which event, and how often it is tried."""

from __future__ import annotations

import functools
import marshal
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from postroom import errors, private_text, versions
from postroom.declaring import event_class_of
from postroom.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "MOST_IN_A_BATCH",
    "MOST_IN_A_GROUP",
    "Handler",
    "Match",
    "Registry",
    "name_of",
    "registry",
]

# An event class, a name or a pattern.
Match = type[Any] | str

MOST_IN_A_BATCH = 1000
# Their tasks are run one within another, each of which takes a dozen of Python's 1,000 calls.
MOST_IN_A_GROUP = 32
# Strangers name events as they like.
MOST_NAMES_KEPT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A function, the events it wants, and its own answer to failure.

    None in an option means what the settings say.
    """

    name: str
    function: Callable[..., Any]
    matches: tuple[Match, ...]
    wants_session: bool
    max_attempts: int | None = None
    backoff_seconds: float | None = None
    give_up_on: tuple[type[BaseException], ...] = ()
    timeout_seconds: float | None = None
    batch: int = 1
    batched: bool = False
    group: int = 1
    subscription: str | None = None
    after_commit: Callable[[Any], object] | None = None

    @property
    def together(self) -> int:
        """How many events may go to it in one transaction."""
        return max(self.batch, self.group)

    @property
    def package(self) -> str:
        """The top-level package of the function: what it raises are the application's own words."""
        function = self.function
        while isinstance(function, functools.partial):
            function = function.func
        return str(function.__module__).partition(".")[0]

    def wants(self, name: str, subscription: str) -> bool:
        """Say whether an event of this name, read from this subscription, is for this handler."""
        if self.subscription not in (None, subscription):
            return False
        return any(_matches(match, name) for match in self.matches)

    def argument(self, prepared: Sequence[Event[Any]]) -> Any:
        """Return what the function is called with: the list of events where it has batches."""
        return prepared if self.batched else prepared[0]

    def prepared(self, event: Event[dict[str, Any]]) -> Event[Any]:
        """Return the event as the function wants it, validated or raw, made anew for each call.

        What a handler changes in it no other handler sees, nor a later attempt of its own.

        Raises:
            InvalidEvent: the data do not fit the event class; the message names the fields.

        """
        # In C, and as deep as JSON goes; of what was decoded here.
        data = marshal.loads(marshal.dumps(event.data))  # noqa: S302
        for match in self.matches:
            known = event_class_of(match)
            if known is not None and known.name == event.name:
                if known.version > 1:
                    data = versions.upcast(
                        event.name, data, event.headers, to_version=known.version
                    )
                return _with(event, known.shape.read(data))
        return _with(event, data)


def name_of(match: Match) -> str:
    """Return the name of the events of a class; a name or a pattern as it is."""
    known = event_class_of(match)
    return str(match) if known is None else known.name


def _matches(match: Match, name: str) -> bool:
    return fnmatchcase(name, match) if isinstance(match, str) else name_of(match) == name


def _with(event: Event[Any], data: object) -> Event[Any]:
    return Event(
        id=event.id,
        name=event.name,
        data=data,
        topic=event.topic,
        key=event.key,
        position=event.position,
        occurred_at=event.occurred_at,
        headers=dict(event.headers),
    )


@dataclass(slots=True)
class Registry:
    """The handlers of an application, in the order in which they were registered.

    Closed before the first event is read: one that comes later would have missed those before it.
    """

    handlers: dict[str, Handler] = field(default_factory=dict)
    is_closed: bool = False
    _added_by: dict[str, object] = field(default_factory=dict)
    _found: dict[tuple[str, str], tuple[Handler, ...]] = field(default_factory=dict)

    def add(self, handler: Handler, *, by: object = None) -> None:
        """Register a handler, `by` the code that asks for it.

        Raises:
            ConfigurationError: another one has its name, or the registry is closed.

        """
        known = self.handlers.get(handler.name)
        if known == handler:
            return
        if known is not None and not self._is_again(known, handler, by):
            raise errors.ConfigurationError(
                f"Two handlers are called {handler.name!r}; give one of them another `name`, or "
                "name all events of a function in one @handles(…)"
            )
        if known is None and self.is_closed:
            raise errors.ConfigurationError(
                f"The handler {handler.name!r} was registered after the consumer had begun, and "
                "would have missed the events until then: import its module at the start, by "
                "Celery's `imports`"
            )
        self.handlers[handler.name] = handler
        self._found.clear()
        self._added_by[handler.name] = by

    def _is_again(self, known: Handler, handler: Handler, by: object) -> bool:
        # A module that is loaded again brings the same function again: made anew, by code that was
        # read anew. Two of the same run of a module would take each other's place unseen.
        if known.function is handler.function or self._added_by[handler.name] is by:
            return False
        return _origin(known.function) == _origin(handler.function)

    def close(self) -> None:
        """Take no new handler from now on."""
        self.is_closed = True

    def require_for(self, wanted: Iterable[str], *, known: Iterable[str]) -> None:
        """Make sure that each subscription has a handler, and each handler a subscription.

        Raises:
            ConfigurationError: one lacks it.

        """
        known = list(known)
        for handler in self.handlers.values():
            if handler.subscription not in (None, *known):
                raise errors.ConfigurationError(
                    f"The handler {handler.name!r} is for the subscription "
                    f"{private_text.quoted(handler.subscription)}; install(consume=…) knows "
                    f"{', '.join(known)}."
                )
        for name in wanted:
            if not any(h.subscription in (None, name) for h in self.handlers.values()):
                raise errors.ConfigurationError(
                    f"No handler is registered for the subscription {name!r}, and every event "
                    "would be acknowledged unseen: name the modules with @handles in Celery's "
                    "`imports`."
                )

    def for_event(self, name: str, subscription: str) -> list[Handler]:
        """Return the handlers that want an event of this name; from any thread once closed."""
        found = self._found.get((name, subscription))
        if found is None:
            found = tuple(h for h in self.handlers.values() if h.wants(name, subscription))
            if len(self._found) >= MOST_NAMES_KEPT:
                self._found.clear()
            self._found[name, subscription] = found
        return list(found)


registry = Registry()


def _origin(function: Callable[..., Any]) -> tuple[str, str]:
    return str(function.__module__), getattr(function, "__qualname__", "")
