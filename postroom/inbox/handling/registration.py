"""Registration: `@handles` makes a function the handler of events, or says why it cannot be one."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from postroom import errors
from postroom.declaring import event_class_of
from postroom.deferred import is_deferring
from postroom.inbox.handling.handlers import (
    MOST_IN_A_BATCH,
    MOST_IN_A_GROUP,
    Handler,
    Match,
    Registry,
    registry,
)
from postroom.private_text import quoted

__all__ = ["handles"]

Function = TypeVar("Function", bound=Callable[..., Any])

MOST_ATTEMPTS = 1000
LONGEST_SECONDS = 86_400.0
LONGEST_NAME = 200


def handles(
    *events: Match,
    name: str | None = None,
    max_attempts: int | None = None,
    backoff_seconds: float | None = None,
    give_up_on: type[BaseException] | Iterable[type[BaseException]] = (),
    timeout_seconds: float | None = None,
    batch: int | None = None,
    group: int | None = None,
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

    It may return a `Write`, or a list of them, in place of writing: that is applied in the same
    transaction, and needs no session. What else it returns means nothing.

    With `group=N` the function is called with one event as ever, but up to N that wait are handled
    one after another in one transaction, each as a task of its own: of different keys, or of one in
    its order. What they return to be written is sent together. Where one fails the transaction is
    undone, the others are handled without it, and it alone has used up an attempt. So what a
    handler does without the session may be done again for a neighbour's failure.

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
    _check_events(events)
    _check_refused(refused)

    def register(function: Function) -> Function:
        _check_callable(function)
        title = _checked_name(name, function)
        handler = Handler(
            name=title,
            function=function,
            matches=events,
            wants_session=_checked_signature(title, function),
            max_attempts=_count(title, "max_attempts", max_attempts, most=MOST_ATTEMPTS),
            backoff_seconds=_seconds(title, "backoff_seconds", backoff_seconds, least=0.001),
            give_up_on=_checked_kinds(title, give_up_on),
            timeout_seconds=_seconds(title, "timeout_seconds", timeout_seconds, least=0.1),
            batch=_count(title, "batch", batch, most=MOST_IN_A_BATCH) or 1,
            batched=batch is not None,
            group=_checked_group(title, group, batched=batch is not None),
            subscription=subscription,
            after_commit=_checked_after(title, after_commit),
        )
        by = sys._getframe(1).f_code  # noqa: SLF001 - documented, if only for CPython
        (registry if into is None else into).add(handler, by=by)
        return function

    return register


def _check_events(events: tuple[Match, ...]) -> None:
    if not events:
        raise errors.ConfigurationError("@handles() needs an event class, a name or a pattern")
    for event in events:
        named = isinstance(event, str) and event.strip()
        if not named and event_class_of(event) is None:
            raise errors.ConfigurationError(
                f"@handles() takes event classes, names and patterns, not {quoted(event)}"
            )


def _check_callable(function: object) -> None:
    if not callable(function):
        raise errors.ConfigurationError(
            f"@handles() is put on a {type(function).__name__}, which cannot be called: a handler "
            "is a function, or what can be called like one"
        )
    try:
        inspect.signature(function)
    except ValueError:
        raise errors.ConfigurationError(
            f"@handles() is put on a {type(function).__name__} that does not tell which arguments "
            "it takes: wrap it in a function of its own"
        ) from None


def _check_refused(refused: dict[str, object]) -> None:
    if refused:
        raise errors.ConfigurationError(
            f"@handles() does not take {', '.join(sorted(refused))}: a retry by Celery would move "
            "the event from Pulsar to Redis; use max_attempts, backoff_seconds, give_up_on, or "
            "raise postroom.Retry(after=…)"
        )


def _checked_name(name: str | None, function: Callable[..., Any]) -> str:
    if name is None:
        own = getattr(function, "__qualname__", None)
        if own is None:
            raise errors.ConfigurationError(
                f"@handles() is put on {type(function).__name__!r}, which has no name of its own: "
                "give it one by name=…"
            )
        return f"{function.__module__}.{own}"
    # It is a task's name, a part of an id, and a message's property.
    if not isinstance(name, str) or not 0 < len(name.strip()) <= LONGEST_NAME:
        raise errors.ConfigurationError(
            f"A handler's name has 1 to {LONGEST_NAME} characters, not {quoted(name)}"
        )
    if not name.isprintable() or name.startswith("celery."):
        raise errors.ConfigurationError(
            f"A handler cannot be called {quoted(name)}: control characters have no place in a "
            "name, and those that begin with celery. are Celery's own tasks"
        )
    return name


def _count(title: str, option: str, value: int | None, *, most: int) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and 1 <= value <= most):
        raise errors.ConfigurationError(
            f"{option} of {title} must be 1 to {most}, not {quoted(value)}"
        )
    return value


def _checked_group(title: str, group: int | None, *, batched: bool) -> int:
    if batched and group is not None:
        raise errors.ConfigurationError(
            f"{title} has both batch and group: a batch is one transaction already, group is for a "
            "function that takes one event"
        )
    return _count(title, "group", group, most=MOST_IN_A_GROUP) or 1


def _seconds(title: str, option: str, value: float | None, *, least: float) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # As the settings that it stands in for: what is over at once makes dead letters of all events.
    if value is not None and not (number and least <= value <= LONGEST_SECONDS):
        raise errors.ConfigurationError(
            f"{option} of {title} must be a number of seconds from {least:g} to "
            f"{LONGEST_SECONDS:g}, not {quoted(value)}"
        )
    return value


def _checked_kinds(title: str, given: object) -> tuple[type[BaseException], ...]:
    kinds = tuple(given) if isinstance(given, Iterable) else (given,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise errors.ConfigurationError(
                f"give_up_on of {title} takes classes of exceptions, not {quoted(kind)}"
            )
    return kinds


def _checked_after(
    title: str, after_commit: Callable[[Any], object] | None
) -> Callable[[Any], object] | None:
    if after_commit is None:
        return None
    if not callable(after_commit) or is_deferring(after_commit):
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
    if is_deferring(function):
        raise errors.ConfigurationError(
            f"{title} is async or a generator: to call it does nothing yet. A handler is a plain "
            "function"
        )
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].name in ("self", "session"):
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
    wants_session = any(p.name == "session" for p in parameters[1:])
    _require_callable(title, function, wants_session=wants_session)
    return wants_session


def _require_callable(title: str, function: Callable[..., Any], *, wants_session: bool) -> None:
    options = {"session": None} if wants_session else {}
    try:
        inspect.signature(function).bind(None, **options)
    except TypeError as error:
        raise errors.ConfigurationError(
            f"{title} must take the event by its place and `session` by its name: {error}"
        ) from None
