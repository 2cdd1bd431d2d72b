"""StructShape: of a msgspec struct. msgspec is imported where there is one, and not before."""

from __future__ import annotations

import datetime as dt
import decimal
import re
import sys
import uuid
from functools import cached_property
from typing import TYPE_CHECKING, Any

from postroom import errors
from postroom.shapes.shape import renamed, require_apart, topmost, unfit, wire_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["StructShape", "is_struct"]

# What rows hold as it is, or have one customary form for.
KEPT = (dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID, bytes)
# What msgspec says without quoting a value; fields of the class itself stand in the place.
_TYPES = re.compile(r"(Expected `[^`]*`, got `[^`]*`)(?: - at `\$\.(\w+))?")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_PLACE = re.compile(r" - at `\$\.(\w+)")


def is_struct(cls: type[Any]) -> bool:
    """Say whether it is a class of msgspec's structs; without msgspec there is none."""
    found = sys.modules.get("msgspec")
    return found is not None and issubclass(cls, found.Struct)


class StructShape:
    """Of a msgspec struct; `rename=` says how its fields are called on the wire, if it is given."""

    def __init__(self, cls: type[Any], name: str) -> None:
        if cls.__struct_config__.array_like:
            raise errors.ConfigurationError(
                f"The event class {cls.__qualname__} is array_like, and an event's data are an "
                "object with fields: leave that out"
            )
        self._cls = cls
        self._name = name
        require_apart(cls, {own: self._wire[name] for own, name in self._encoded.items()})

    @property
    def names(self) -> Collection[str]:
        """The fields, without reading what their types are."""
        return tuple(self._cls.__struct_fields__)

    def on_the_wire(self, field: str) -> str:
        """Return a field's name on the wire."""
        return self._wire[self._encoded[field]]

    def written(self, event: Any) -> dict[str, Any]:
        """Return its data, validated now: the class itself checks no types."""
        import msgspec

        try:
            data = msgspec.to_builtins(event, builtin_types=KEPT, order="deterministic")
            msgspec.convert(data, self._cls, builtin_types=KEPT)
        except msgspec.ValidationError as error:
            raise unfit(self._name, self._fault(error)) from None
        except (TypeError, ValueError) as error:
            said = str(error) if isinstance(error, TypeError) else type(error).__name__
            raise unfit(self._name, said[:100]) from None
        return renamed(data, self._wire)

    def read(self, data: dict[str, Any]) -> Any:
        """Return an instance; see Shape."""
        import msgspec

        try:
            # As pydantic does: a number of seconds is a timedelta.
            return msgspec.convert(renamed(data, self._of_read), self._cls, strict=False)
        except msgspec.ValidationError as error:
            raise unfit(self._name, self._fault(error)) from None

    def value(self, event: Any, field: str) -> Any:
        """Return what an instance has in a field."""
        return getattr(event, field)

    def required(self) -> list[str]:
        """Return the fields without a default."""
        import msgspec

        found = msgspec.structs.fields(self._cls)
        return sorted(self._wire[each.encode_name] for each in found if each.required)

    def schema(self, prefix: str) -> dict[str, Any]:
        """Return its JSON Schema; see Shape."""
        import msgspec

        (top,), inner = msgspec.json.schema_components(
            [self._cls], ref_template=f"{prefix}{{name}}"
        )
        return topmost({**top, "$defs": dict(inner)}, self._wire)

    @cached_property
    def _encoded(self) -> Mapping[str, str]:
        names = zip(self._cls.__struct_fields__, self._cls.__struct_encode_fields__, strict=True)
        return dict(names)

    @cached_property
    def _wire(self) -> Mapping[str, str]:
        return {encoded: wire_name(own, encoded) for own, encoded in self._encoded.items()}

    @cached_property
    def _of_read(self) -> Mapping[str, str]:
        return {**self._encoded, **{wire: encoded for encoded, wire in self._wire.items()}}

    def _fault(self, error: Exception) -> str:
        # Never the message itself: it may be the application's, or quote what was found.
        said = str(error)
        if found := _MISSING.match(said):
            return f"{self._wire.get(found[1], 'a field')}: Field required"
        place = _PLACE.search(said)
        field = self._wire.get(place[1], "a field") if place else "the whole"
        if found := _TYPES.match(said):
            return f"{field}: {found[1]}"
        return f"{field}: against a rule of its own"
