"""Handlers: which function does what with which event, and how often it is tried."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from pydantic import ValidationError

from postroom import errors, private_text
from postroom.events import DomainEvent, Event

__all__ = ["Handler", "Registry", "handles", "registry"]

Function = TypeVar("Function", bound=Callable[..., Any])
Match = type[DomainEvent] | str

MOST_IN_A_BATCH = 1000


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
    subscription: str | None = None
    after_commit: Callable[[Any], object] | None = None

    @property
    def package(self) -> str:
        """The top-level package of the function: what it raises are the application's own words."""
        return str(self.function.__module__).partition(".")[0]

    def wants(self, name: str, subscription: str) -> bool:
        """Say whether an event of this name, read from this subscription, is for this handler."""
        if self.subscription not in (None, subscription):
            return False
        return any(_matches(match, name) for match in self.matches)

    def prepared(self, event: Event[dict[str, Any]]) -> Event[Any]:
        """Return the event as the function wants it: decoded and validated, or raw.

        Raises:
            InvalidEvent: the data do not fit the event class; the message names the fields.

        """
        for match in self.matches:
            if isinstance(match, type) and match.event_name == event.name:
                return _validated(match, event)
        return event


def _matches(match: Match, name: str) -> bool:
    return fnmatchcase(name, match) if isinstance(match, str) else match.event_name == name


def _validated(model: type[DomainEvent], event: Event[dict[str, Any]]) -> Event[Any]:
    try:
        data = model.model_validate(event.data)
    except ValidationError as error:
        faults = private_text.faults(error, fields=_fields(model))
        raise errors.InvalidEvent(f"The data of {event.name} do not fit: {faults}") from None
    return Event(
        id=event.id,
        name=event.name,
        data=data,
        topic=event.topic,
        key=event.key,
        position=event.position,
        occurred_at=event.occurred_at,
        headers=event.headers,
    )


def _fields(model: type[DomainEvent]) -> set[str]:
    """Return the names by which pydantic may call the fields of an event class."""
    aliases = {
        alias
        for field in model.model_fields.values()
        for alias in (field.alias, field.validation_alias)
        if isinstance(alias, str)
    }
    return aliases | set(model.model_fields)


@dataclass(slots=True)
class Registry:
    """The handlers of an application, in the order in which they were registered.

    Closed before the first event is read: one that comes later would have missed those before it.
    """

    handlers: dict[str, Handler] = field(default_factory=dict)
    is_closed: bool = False

    def add(self, handler: Handler) -> None:
        """Register a handler.

        Raises:
            ConfigurationError: another one has its name, or the registry is closed.

        """
        known = self.handlers.get(handler.name)
        # A module that is imported again brings the same function again.
        if known is not None and _origin(known.function) != _origin(handler.function):
            raise errors.ConfigurationError(
                f"Two handlers are called {handler.name!r}; give one of them another `name`"
            )
        if known is None and self.is_closed:
            raise errors.ConfigurationError(
                f"The handler {handler.name!r} was registered after the consumer had begun, and "
                "would have missed the events until then: import its module at the start, by "
                "Celery's `imports`"
            )
        self.handlers[handler.name] = handler

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
                    f"{handler.subscription!r}; install(consume=…) knows {', '.join(known)}."
                )
        for name in wanted:
            if not any(h.subscription in (None, name) for h in self.handlers.values()):
                raise errors.ConfigurationError(
                    f"No handler is registered for the subscription {name!r}, and every event "
                    "would be acknowledged unseen: name the modules with @handles in Celery's "
                    "`imports`."
                )

    def for_event(self, name: str, subscription: str) -> list[Handler]:
        """Return the handlers that want an event of this name."""
        return [h for h in self.handlers.values() if h.wants(name, subscription)]


registry = Registry()


def _origin(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def handles(
    *events: Match,
    name: str | None = None,
    max_attempts: int | None = None,
    backoff_seconds: float | None = None,
    give_up_on: Iterable[type[BaseException]] = (),
    timeout_seconds: float | None = None,
    batch: int | None = None,
    subscription: str | None = None,
    after_commit: Callable[[Any], object] | None = None,
    into: Registry | None = None,
    **refused: object,
) -> Callable[[Function], Function]:
    """Register a function as the handler of events: of classes, names or patterns as in the shell.

    The function takes the event and, if it has a parameter `session`, the session of the MongoDB
    transaction in which the inbox remembers the event: what it writes with that session is applied
    once, whatever is delivered how often. For an event class `event.data` is an instance of it,
    validated; for a name or pattern it is the plain object of the wire. With `batch=N` the first
    argument is a list of up to N events instead, all handled in one transaction.

    `name` is the name of its Celery task and its identity in the inbox: give one, and it may be
    renamed and moved. It is tried `max_attempts` times, at once given up for errors in
    `give_up_on`, and reported after `timeout_seconds`. `subscription` restricts it to one.

    `after_commit` is called with the same event or list when the transaction is committed, and at
    least once, also where the worker is killed in between: for what others see (a mail, a request,
    a log line), with `event.id` as the idempotency key. It belongs to the same task, timeout and
    attempts; where it raises the effect stands, and it alone is tried again.

    The function itself is returned, to be called in tests as it is.

    Raises:
        ConfigurationError: the function cannot be a handler; the sentence says why.

    """
    _check_options(events, refused, batch)

    def register(function: Function) -> Function:
        title = name or f"{function.__module__}.{getattr(function, '__qualname__', '?')}"
        (registry if into is None else into).add(
            Handler(
                name=title,
                function=function,
                matches=events,
                wants_session=_checked_signature(title, function),
                max_attempts=max_attempts,
                backoff_seconds=backoff_seconds,
                give_up_on=tuple(give_up_on),
                timeout_seconds=timeout_seconds,
                batch=batch or 1,
                batched=batch is not None,
                subscription=subscription,
                after_commit=_checked_after(title, after_commit),
            )
        )
        return function

    return register


def _check_options(
    events: tuple[Match, ...], refused: dict[str, object], batch: int | None
) -> None:
    if not events:
        raise errors.ConfigurationError("@handles() needs an event class, a name or a pattern")
    for event in events:
        named = isinstance(event, str) and event
        if not named and not (isinstance(event, type) and issubclass(event, DomainEvent)):
            raise errors.ConfigurationError(
                f"@handles() takes event classes, names and patterns, not {event!r}"
            )
    if refused:
        raise errors.ConfigurationError(
            f"@handles() does not take {', '.join(sorted(refused))}: a retry by Celery would move "
            "the event from Pulsar to Redis; use max_attempts, backoff_seconds, give_up_on, or "
            "raise postroom.Retry(after=…)"
        )
    if batch is not None and not 1 <= batch <= MOST_IN_A_BATCH:
        raise errors.ConfigurationError(f"batch must be 1 to {MOST_IN_A_BATCH}, not {batch}")


def _checked_after(
    title: str, after_commit: Callable[[Any], object] | None
) -> Callable[[Any], object] | None:
    if after_commit is None:
        return None
    if not callable(after_commit) or inspect.iscoroutinefunction(after_commit):
        raise errors.ConfigurationError(f"after_commit of {title} must be a plain function")
    try:
        inspect.signature(after_commit).bind(None)
    except TypeError:
        raise errors.ConfigurationError(
            f"after_commit of {title} must take the event, and nothing else without a default"
        ) from None
    return after_commit


def _checked_signature(title: str, function: Callable[..., Any]) -> bool:
    if hasattr(function, "apply_async"):
        raise errors.ConfigurationError(
            f"{title} is a Celery task already, and its autoretry_for and self.retry would move "
            "the event from Pulsar to Redis; put @handles on a plain function"
        )
    if inspect.iscoroutinefunction(function):
        raise errors.ConfigurationError(f"{title} is async; a handler is a plain function")
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].name == "self":
        raise errors.ConfigurationError(
            f"{title} must take the event as its first argument, and `session` if it writes; a "
            "handler has no `self` and no self.retry: raise postroom.Retry(after=…)"
        )
    others = [
        p.name
        for p in parameters[1:]
        if p.name != "session" and p.default is p.empty and not re.match(r"VAR_", p.kind.name)
    ]
    if others:
        raise errors.ConfigurationError(
            f"{title} asks for {', '.join(others)}; a handler is given an event and `session`"
        )
    return any(p.name == "session" for p in parameters[1:])
