"""Handling: a handler run on an event in the calling thread, by the rules of the inbox."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import bson
from bson import ObjectId

from postroom import versions
from postroom.declaring import event_class_of
from postroom.errors import ConfigurationError, InvalidEvent
from postroom.events import Event, decode, encode
from postroom.inbox.handling.applying import Applying
from postroom.inbox.handling.call import Call
from postroom.inbox.handling.handlers import Handler, registry
from postroom.inbox.handling.lifetime import Lifetime
from postroom.store.codec import WRITING, decoded_all
from postroom.store.inbox_rows import InboxRows
from postroom.testing.published import Published

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pymongo.database import Database

    from postroom.inbox.handling.handlers import Registry
    from postroom.inbox.handling.outcome import Applied

__all__ = ["Given", "as_event", "handler_of", "run"]

# An instance of an event class, what was published, or what a handler gets.
Given = Any
TOPIC = "public/default/events"


def handler_of(wanted: str | Callable[..., Any], among: Registry = registry) -> Handler:
    """Return a registered handler, by its function or its name.

    Raises:
        ConfigurationError: it is not registered.

    """
    for handler in among.handlers.values():
        if wanted in (handler.name, handler.function):
            return handler
    shown = wanted if isinstance(wanted, str) else getattr(wanted, "__qualname__", wanted)
    raise ConfigurationError(
        f"{shown} is no registered handler: put @handles(…) on it, and import its module"
    )


def as_event(given: Given, *, headers: Mapping[str, str]) -> Event[Any]:
    """Return what is given as a consumer gets it: it has been JSON on the way.

    Raises:
        InvalidEvent: it is none, or holds what BSON has no form for.
        Poison: it holds what JSON has no form for.

    """
    if isinstance(given, Published):
        return given.event(TOPIC)
    data = given.data if isinstance(given, Event) else given
    if (known := event_class_of(type(data))) is not None:
        data = known.to_wire(data)["data"]
        headers = {versions.HEADER: str(known.version), **headers} if known.version > 1 else headers
    if isinstance(given, Event):
        _, data = _on_the_way({"name": given.name, "data": data})
        return replace(given, data=data, headers={**given.headers, **headers})
    # What is no event is refused as consumers refuse it.
    name, data = _on_the_way(given if known is None else {"name": known.name, "data": data})
    event_id = str(ObjectId())
    return Event(id=event_id, name=name, data=data, topic=TOPIC, headers=dict(headers))


def _on_the_way(wire: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and data of what was a row first, and a message then."""
    try:
        row = bson.encode({"wire": wire}, codec_options=WRITING)
    except bson.errors.BSONError as error:
        raise InvalidEvent("The event holds what BSON has no form for: give one event") from error
    (stored,) = decoded_all(row)
    return decode(encode(stored["wire"]))


def run(
    handler: Handler, events: Sequence[Event[Any]], database: Database[Any], *, subscription: str
) -> Applied:
    """Run a handler in one transaction with its inbox rows, unless it has handled the events.

    Raises:
        Exception: whatever the handler raised; nothing was written.

    """
    applying = Applying(
        handler,
        events,
        subscription=subscription,
        rows=InboxRows(database),
        lifetime=Lifetime(None),
    )
    call = Call()
    call.begin()
    with database.client.start_session() as session:
        applying.transact(session, call)
    applying.aftermath.come(call)
    return applying.applied
