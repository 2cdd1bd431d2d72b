"""Schemas: what the events of an application look like, for others and for the next release."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import PydanticUserError

from postroom import errors, event_classes, versions
from postroom.declaring import EventClass, declared, event_class_of
from postroom.events import DomainEvent
from postroom.topics import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from postroom.routing import Routing

__all__ = ["asyncapi", "classes", "exported"]

FORM = 1
# What AsyncAPI takes in no key; nor does a reference, which is a JSON pointer.
NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9._-]")


def classes() -> dict[str, EventClass]:
    """Return the event classes that were imported, by the names of their events."""
    models = (event_class_of(each) for each in _below(DomainEvent))
    found = {each.name: each for each in (*models, *declared()) if each is not None}
    return dict(sorted(found.items()))


def _below(cls: type[DomainEvent]) -> Iterator[type[DomainEvent]]:
    for each in cls.__subclasses__():
        yield each
        yield from _below(each)


def exported(of: Mapping[str, EventClass]) -> dict[str, Any]:
    """Return the JSON Schema of each event's data, with its version, key and required fields.

    `required` is what a consumer's class insists on; in the schema all that is written is.
    `upcasts` are the versions from which the application can bring an event to the next one.
    """
    schemas, definitions = _schemas(of, "definitions")
    events = {
        name: {
            "version": known.version,
            "key": event_classes.key_field(name),
            "required": known.shape.required(),
            "upcasts": [n for n in range(1, known.version) if versions.is_registered(name, n)],
            "schema": schemas[name],
        }
        for name, known in of.items()
    }
    return {"form": FORM, "events": events, "definitions": definitions}


def asyncapi(
    of: Mapping[str, EventClass], routing: Routing, *, title: str, version: str
) -> dict[str, Any]:
    """Return an AsyncAPI 3.0 document of the topics and the events that go there.

    An event whose topic a function tells by its data is left out of the channels.
    """
    schemas, definitions = map(_undiscriminated, _schemas(of, "components/schemas"))
    keys, topics = _keys(of), {name: _topic_of(routing, name) for name in of}
    places = _keys(dict.fromkeys(filter(None, topics.values())))
    channels: dict[str, Any] = {}
    for name, topic in topics.items():
        if topic is not None:
            channel = channels.setdefault(places[topic], {"address": topic, "messages": {}})
            channel["messages"][keys[name]] = {"$ref": f"#/components/messages/{keys[name]}"}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            f"send-{name}": {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
            for name in channels
        },
        "components": {
            "messages": {keys[name]: _message(each, schemas[name]) for name, each in of.items()},
            "schemas": definitions,
        },
    }


def _message(known: EventClass, schema: Mapping[str, Any]) -> dict[str, Any]:
    name = known.name
    payload = {
        "type": "object",
        "required": ["name", "data"],
        "properties": {"name": {"const": name}, "data": schema},
    }
    header = {"id": {"type": "string"}, "position": {"type": "string"}}
    if known.version > 1:
        header[versions.HEADER] = {"type": "string"}
    found = {"name": name, "payload": payload, "headers": {"type": "object", "properties": header}}
    return {**found, "summary": _first_line(known.cls)} if known.cls.__doc__ else found


def _first_line(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _schemas(of: Mapping[str, EventClass], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return each event's schema, and what they refer to, by names that no two events share."""
    schemas: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    keys = _keys(of)
    for name, known in of.items():
        try:
            found = known.shape.schema(f"#/{where}/{keys[name]}.")
        except (PydanticUserError, TypeError) as error:
            # It holds what JSON Schema has no word for; the others have theirs.
            found = {"$comment": f"It has no JSON Schema ({type(error).__name__})"}
        for inner, schema in found.pop("$defs", {}).items():
            definitions[f"{keys[name]}.{inner}"] = schema
        schemas[name] = found
    return schemas, definitions


def _undiscriminated(found: Any) -> Any:
    """Return schemas without OpenAPI's discriminator, for which AsyncAPI wants another form.

    Its values are told by each alternative's own schema as well.
    """
    if isinstance(found, list):
        return [_undiscriminated(each) for each in found]
    if not isinstance(found, dict):
        return found
    return {
        name: _undiscriminated(each)
        for name, each in found.items()
        if name != "discriminator" or not (isinstance(each, dict) and "propertyName" in each)
    }


def _topic_of(routing: Routing, name: str) -> str | None:
    try:
        return canonical(routing.topic(name, {}))
    except (errors.PostroomError, LookupError, TypeError, AttributeError):
        return None


def _keys(names: Iterable[str]) -> dict[str, str]:
    """Return a key within the document for each event or topic; no two have the same."""
    keys: dict[str, str] = {}
    for name in names:
        key = NOT_IN_KEYS.sub("_", name.partition("://")[2].replace("/", ".") or name)
        while key in keys.values():
            key += "_"
        keys[name] = key
    return keys
