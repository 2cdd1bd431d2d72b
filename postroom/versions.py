"""Versions of events: what was published by an older class is brought to the form of today's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["HEADER", "checked", "is_registered", "register", "upcast"]

# A header of the row, and so a property of the message; an event without it is of version 1.
HEADER = "event-version"
MOST = 10_000

_upcasters: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}


def checked(version: object, cls: str) -> int:
    """Return the version of an event class.

    Raises:
        ConfigurationError: it is none.

    """
    if type(version) is not int or not 1 <= version <= MOST:
        raise errors.ConfigurationError(
            f"The event class {cls} has a version that is no number from 1 to {MOST}"
        )
    return version


def register(
    name: str, from_version: int, function: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Note what makes data of the next version of data of this one.

    Raises:
        ConfigurationError: another function does.

    """
    known = _upcasters.setdefault((name, from_version), function)
    origin = (known.__module__, getattr(known, "__qualname__", ""))
    if origin != (function.__module__, getattr(function, "__qualname__", "")):
        raise errors.ConfigurationError(
            f"Two functions upcast {name} from version {from_version}: "
            f"{'.'.join(origin)} and another one"
        )
    _upcasters[name, from_version] = function


def is_registered(name: str, from_version: int) -> bool:
    """Say whether something upcasts an event from this version."""
    return (name, from_version) in _upcasters


def upcast(
    name: str, data: dict[str, Any], headers: Mapping[str, str], *, to_version: int
) -> dict[str, Any]:
    """Return the data of an event in the form of a version; a step without an upcaster is none.

    Data of a later version are left as they are.

    Raises:
        InvalidEvent: an upcaster failed, or returned no object.

    """
    said = headers.get(HEADER, "1")
    version = int(said) if said.isdecimal() and len(said) < len(str(MOST)) + 1 else 1
    for step in range(version, to_version):
        if (function := _upcasters.get((name, step))) is not None:
            data = _applied(function, name, data, step)
    return data


def _applied(
    function: Callable[[dict[str, Any]], dict[str, Any]],
    name: str,
    data: dict[str, Any],
    step: int,
) -> dict[str, Any]:
    try:
        found = function(data)
    except Exception as error:  # noqa: BLE001 - the application's own, and it will fail again
        raise errors.InvalidEvent(
            f"What upcasts {name} from version {step} failed ({type(error).__name__})"
        ) from None
    if not isinstance(found, dict):
        raise errors.InvalidEvent(
            f"What upcasts {name} from version {step} has returned a {type(found).__name__}, and "
            "no dict"
        )
    return found
