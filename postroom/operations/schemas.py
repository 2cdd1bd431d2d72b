"""Schemas: what the events of an application look like, for others and for the next release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import PydanticUserError

from postroom import errors, event_classes, versions
from postroom.events import DomainEvent
from postroom.topics import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from postroom.routing import Routing

__all__ = ["asyncapi", "classes", "exported"]

FORM = 1


def classes() -> dict[str, type[DomainEvent]]:
    """Return the event classes that were imported, by the names of their events."""
    found = {each.event_name: each for each in _below(DomainEvent)}
    return dict(sorted(found.items()))


def _below(cls: type[DomainEvent]) -> Iterator[type[DomainEvent]]:
    for each in cls.__subclasses__():
        yield each
        yield from _below(each)


def exported(of: Mapping[str, type[DomainEvent]]) -> dict[str, Any]:
    """Return the JSON Schema of each event's data, with its version, key and required fields.

    `required` is what a consumer's class insists on; in the schema all that is written is.
    `upcasts` are the versions from which the application can bring an event to the next one.
    """
    schemas, definitions = _schemas(of, "definitions")
    events = {
        name: {
            "version": cls.event_version,
            "key": event_classes.key_field(name),
            "required": sorted(
                str(field.serialization_alias or field.alias or own)
                for own, field in cls.model_fields.items()
                if field.is_required()
            ),
            "upcasts": [n for n in range(1, cls.event_version) if versions.is_registered(name, n)],
            "schema": schemas[name],
        }
        for name, cls in of.items()
    }
    return {"form": FORM, "events": events, "definitions": definitions}


def asyncapi(
    of: Mapping[str, type[DomainEvent]], routing: Routing, *, title: str, version: str
) -> dict[str, Any]:
    """Return an AsyncAPI 3.0 document of the topics and the events that go there.

    An event whose topic a function tells by its data is left out of the channels.
    """
    schemas, definitions = _schemas(of, "components/schemas")
    channels: dict[str, Any] = {}
    for name in of:
        topic = _topic_of(routing, name)
        if topic is not None:
            channel = channels.setdefault(_short(topic), {"address": topic, "messages": {}})
            channel["messages"][name] = {"$ref": f"#/components/messages/{name}"}
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
            "messages": {name: _message(cls, schemas[name]) for name, cls in of.items()},
            "schemas": definitions,
        },
    }


def _message(cls: type[DomainEvent], schema: Mapping[str, Any]) -> dict[str, Any]:
    name = cls.event_name
    payload = {
        "type": "object",
        "required": ["name", "data"],
        "properties": {"name": {"const": name}, "data": schema},
    }
    header = {"id": {"type": "string"}, "position": {"type": "string"}}
    if cls.event_version > 1:
        header[versions.HEADER] = {"type": "string"}
    found = {"name": name, "payload": payload, "headers": {"type": "object", "properties": header}}
    return {**found, "summary": _first_line(cls)} if cls.__doc__ else found


def _first_line(cls: type[DomainEvent]) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _schemas(
    of: Mapping[str, type[DomainEvent]], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return each event's schema, and what they refer to, by names that no two events share."""
    schemas: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for name, cls in of.items():
        try:
            found = cls.model_json_schema(
                mode="serialization", ref_template=f"#/{where}/{name}.{{model}}"
            )
        except PydanticUserError as error:
            # It holds what JSON Schema has no word for; the others have theirs.
            found = {"$comment": f"It has no JSON Schema ({type(error).__name__})"}
        for inner, schema in found.pop("$defs", {}).items():
            definitions[f"{name}.{inner}"] = schema
        schemas[name] = found
    return schemas, definitions


def _topic_of(routing: Routing, name: str) -> str | None:
    try:
        return canonical(routing.topic(name, {}))
    except (errors.PostroomError, LookupError, TypeError, AttributeError):
        return None


def _short(topic: str) -> str:
    # A name within the document, which may hold no slash.
    return topic.partition("://")[2].replace("/", ".")
