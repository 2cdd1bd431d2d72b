"""Event classes: what those of a process say of all events of a name, whoever wrote their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from postroom.shapes import Shape

__all__ = ["encrypt", "encrypted", "is_again", "key_field", "key_fields", "register"]

# What the broker is not to be able to read, by name.
_encrypted: set[str] = set()
# Which class says how events of a name are keyed.
_keyed: dict[str, tuple[type[Any], str, Shape]] = {}
# The same as the field's name on the wire; filled when it is asked for, since pydantic may learn a
# field's alias only when all types that the class names are there.
_key_fields: dict[str, str] = {}


def register(name: str, cls: type[Any], key: str, shape: Shape) -> None:
    """Note the field of a class, as it is called in Python, that keys events of a name.

    Raises:
        ConfigurationError: it has no such field, or another class of this name has another key.

    """
    if key not in shape.names:
        raise errors.ConfigurationError(
            f"The event class {cls.__qualname__} is keyed by {key!r}, which is no field of it: "
            "name the field as it is called in Python"
        )
    other, others, _ = _keyed.get(name, (cls, key, shape))
    if others != key and not is_again(cls, other):
        raise errors.ConfigurationError(
            f"Events called {name!r} are keyed by {others!r} "
            f"({other.__module__}.{other.__qualname__}) and by {key!r} "
            f"({cls.__module__}.{cls.__qualname__}): one name has one key"
        )
    _keyed[name] = cls, key, shape
    _key_fields.pop(name, None)


def is_again(cls: type[Any], other: type[Any]) -> bool:
    """Say whether a class is another one made anew, by its place.

    So it is where a module is loaded again, a cell of a notebook is run again, or a decorator makes
    another class of one.
    """
    return (cls.__module__, cls.__qualname__) == (other.__module__, other.__qualname__)


def key_field(name: str) -> str | None:
    """Return the field of the wire data that keys events of this name, if their class says so.

    Raises:
        ConfigurationError: the class's annotations cannot be read, or the field is not written.

    """
    if name not in _keyed:
        return None
    found = _key_fields.get(name)
    if found is None:
        _, key, shape = _keyed[name]
        found = _key_fields[name] = shape.on_the_wire(key)
    return found


def key_fields() -> list[tuple[str, str]]:
    """Return the names of which events classes key, each with the field of the wire data.

    Raises:
        ConfigurationError: as key_field() does.

    """
    return [(name, key_field(name) or "") for name in list(_keyed)]


def encrypt(name: str) -> None:
    """Note that events of a name are to be encrypted; nothing takes that back."""
    _encrypted.add(name)


def encrypted() -> AbstractSet[str]:
    """Return the names of which events are to be encrypted, as they become known."""
    return _encrypted
