"""Declaring: classes that are no DomainEvent as event classes; one adapter for all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass
from typing import Any, TypeVar, overload
from weakref import WeakKeyDictionary

from postroom import errors, event_classes, versions
from postroom.events import DomainEvent
from postroom.private_text import quoted
from postroom.shapes import ModelShape, Shape, shape_of

__all__ = ["EventClass", "declared", "event_class", "event_class_of", "upcasts"]

Class = TypeVar("Class", bound=type[Any])
Upcaster = TypeVar("Upcaster", bound=Callable[[dict[str, Any]], dict[str, Any]])


@dataclass(frozen=True, slots=True, kw_only=True)
class EventClass:
    """What is known of a class whose instances are events, whatever kind of class it is.

    `key` is the field that keys its events, as it is called in Python.
    """

    cls: type[Any]
    name: str
    key: str | None
    encrypted: bool
    version: int
    shape: Shape

    def to_wire(self, event: Any) -> dict[str, Any]:
        """Return {"name", "data"} of an instance, as it is stored in the outbox row.

        Raises:
            InvalidEvent: its data do not fit the class.

        """
        if isinstance(event, DomainEvent):
            return event.to_wire()
        return {"name": self.name, "data": self.shape.written(event)}


# Where a class keeps its own EventClass: one made at run time goes with all that is known of it,
# and one that a decorator makes anew of another has it as well.
NOTE = "__postroom_event_class__"
_known: WeakKeyDictionary[type[Any], None] = WeakKeyDictionary()


def event_class_of(cls: object) -> EventClass | None:
    """Return what is known of a class whose instances can be events; None where they cannot.

    A dataclass, TypedDict or struct that was not declared is called as its class is, and takes all
    else from the class that it extends; one that is iterable has to be declared. One that a
    decorator made anew of a declared class is that class.
    """
    if not isinstance(cls, type):
        return None
    found: EventClass | None = cls.__dict__.get(NOTE)
    if (found is None or found.cls is not cls) and (found := _found(cls)) is not None:
        _note(found)
    return found


def _note(found: EventClass) -> None:
    setattr(found.cls, NOTE, found)
    _known[found.cls] = None


def declared() -> list[EventClass]:
    """Return all classes that are no DomainEvent and were declared or used as event classes."""
    # A list of the dictionary itself, which publishers may add to meanwhile.
    classes = (reference() for reference in _known.keyrefs())
    return [
        cls.__dict__[NOTE]
        for cls in classes
        if cls is not None and not issubclass(cls, DomainEvent)
    ]


def _found(cls: type[Any]) -> EventClass | None:
    if issubclass(cls, DomainEvent):
        return EventClass(
            cls=cls,
            name=cls.event_name,
            key=cls.event_key,
            encrypted=cls.event_encrypted,
            version=cls.event_version,
            shape=ModelShape(cls, cls.event_name),
        )
    # What the package itself hands out, such as the Event of a handler, is none.
    if cls.__module__.partition(".")[0] == "postroom" or shape_of(cls, "") is None:
        return None
    near = _noted(cls.__mro__)
    if near is not None and event_classes.is_again(cls, near.cls):
        return _declared(
            cls, name=near.name, key=near.key, encrypted=near.encrypted, version=near.version
        )
    if hasattr(cls, "__iter__") and not issubclass(cls, dict):
        # Of events, maybe: publish() takes any iterable. A TypedDict has no instances of its own.
        return None
    return _declared(cls, name=None, key=None, encrypted=None, version=None)


def _noted(classes: Iterable[type[Any]]) -> EventClass | None:
    return next((each.__dict__[NOTE] for each in classes if NOTE in each.__dict__), None)


def _declared(
    cls: type[Any],
    *,
    name: str | None,
    key: str | None,
    encrypted: bool | None,
    version: int | None,
) -> EventClass:
    name = cls.__name__ if name is None else name
    shape = shape_of(cls, name)
    if shape is None:
        raise _no_kind(cls)
    base = _noted(cls.__mro__[1:])
    if base is not None:
        key = base.key if key is None else key
        encrypted = base.encrypted if encrypted is None else encrypted
        version = base.version if version is None else version
    version = versions.checked(1 if version is None else version, cls.__qualname__)
    if key is not None:
        event_classes.register(name, cls, key, shape)
    if encrypted:
        event_classes.encrypt(name)
    return EventClass(
        cls=cls, name=name, key=key, encrypted=bool(encrypted), version=version, shape=shape
    )


def _no_kind(cls: type[Any]) -> errors.ConfigurationError:
    return errors.ConfigurationError(
        f"@event_class is put on {cls.__qualname__}, which is no dataclass, TypedDict or "
        "msgspec struct: put it above @dataclass, or let the class extend DomainEvent"
    )


@overload
def event_class(cls: Class, /) -> Class: ...


@overload
def event_class(
    *,
    name: str | None = None,
    key: str | None = None,
    encrypted: bool | None = None,
    version: int | None = None,
) -> Callable[[Class], Class]: ...


def event_class(
    cls: Class | None = None,
    /,
    *,
    name: str | None = None,
    key: str | None = None,
    encrypted: bool | None = None,
    version: int | None = None,
) -> Class | Callable[[Class], Class]:
    """Declare a dataclass, TypedDict or msgspec struct as an event class, and return it unchanged.

    What is published and asked for by handlers is then the same as with a DomainEvent, and the
    options are those of one. Fields are snake_case in Python and camelCase on the wire, unless the
    class names them itself (`Field(alias=…)`, `rename=…`); nested classes are written as their
    library does. Types are checked when an instance is published and when one is received. What
    the class does not know of an event is left out of the instance.

    A TypedDict is the data of the wire, by their names there: publish `{"name": …, "data": …}`.

    Raises:
        ConfigurationError: it is no such class, has no field `key`, or another class of this name
            has another key.

    """

    def declare(cls: Class) -> Class:
        if issubclass(cls, DomainEvent):
            raise errors.ConfigurationError(
                f"@event_class is put on {cls.__qualname__}, a DomainEvent: say it as "
                f"`class {cls.__name__}(DomainEvent, key=…)`"
            )
        if is_dataclass(cls) and "__dataclass_fields__" not in cls.__dict__:
            # It extends one; what makes it one itself, with fields of its own, would come later.
            raise _no_kind(cls)
        _note(_declared(cls, name=name, key=key, encrypted=encrypted, version=version))
        return cls

    return declare if cls is None else declare(cls)


def upcasts(event: type[Any], *, from_version: int) -> Callable[[Upcaster], Upcaster]:
    """Register a function that makes the wire data of the next version of those of this one.

    Handlers get an event of an older version through all functions from there on, whenever and by
    whomever it was published: as it comes from its topic, from a replay or from the dead letters.
    The function gets the plain object of the wire, which it may change, and returns one. A step
    that needs no change needs no function.

    Raises:
        ConfigurationError: it is no event class or has no later version, or another function does
            this step.

    """
    known = event_class_of(event)
    if known is None:
        raise errors.ConfigurationError(f"@upcasts() takes an event class, not {quoted(event)}")
    if not 1 <= from_version < known.version:
        raise errors.ConfigurationError(
            f"@upcasts({event.__qualname__}, from_version={from_version}): the class has version "
            f"{known.version}; give it a later one by version=…"
        )

    def register(function: Upcaster) -> Upcaster:
        versions.register(known.name, from_version, function)
        return function

    return register
