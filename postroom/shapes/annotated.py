"""AnnotatedShape: of a dataclass or TypedDict, as pydantic reads its annotations."""

from __future__ import annotations

import dataclasses
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from postroom import errors, private_text
from postroom.shapes.shape import renamed, require_apart, topmost, unfit, unwritten, wire_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["AnnotatedShape"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Fields:
    """What the fields are called: in Python, where pydantic reads them, and where it writes."""

    wire: Mapping[str, str]
    of_read: Mapping[str, str]
    of_written: Mapping[str, str]
    required: tuple[str, ...]


class AnnotatedShape:
    """Of a dataclass or TypedDict; its annotations are read when they are needed first.

    A TypedDict is the object of the wire itself: its fields are called there as they are here.

    Raises:
        ConfigurationError: it is a TypedDict that pydantic cannot read in this Python, or has a
            field that no instance can be made with.

    """

    def __init__(self, cls: type[Any], name: str) -> None:
        self._cls = cls
        self._name = name
        self._is_dict = not dataclasses.is_dataclass(cls)
        if type(cls).__module__ == "typing" and sys.version_info < (3, 12):
            raise errors.ConfigurationError(
                f"The event class {cls.__qualname__} is a TypedDict of typing, whose annotations "
                "pydantic cannot read before Python 3.12: take that of typing_extensions"
            )
        fields = () if self._is_dict else dataclasses.fields(cls)
        if lost := [each.name for each in fields if not each.init]:
            raise errors.ConfigurationError(
                f"The event class {cls.__qualname__} has {', '.join(lost)} with init=False: who "
                "receives the event could not be given what was published. Leave init=False out, "
                "or let it be a property"
            )

        if not self._is_dict and len({*map(wire_name, self.names)}) < len(self.names):
            # Unless they have aliases, which only pydantic knows.
            _ = self._fields

    @property
    def names(self) -> Collection[str]:
        """The fields, without reading what their types are."""
        if self._is_dict:
            return {*self._cls.__required_keys__, *self._cls.__optional_keys__}
        return {field.name for field in dataclasses.fields(self._cls)}

    def on_the_wire(self, field: str) -> str:
        """Return a field's name on the wire; see Shape."""
        found = self._fields.wire.get(field)
        if found is None:
            raise unwritten(self._cls, field)
        return found

    def written(self, event: Any) -> dict[str, Any]:
        """Return its data, validated now: the class itself checks no types.

        That is what the instance holds, once the class has read it as whoever receives it will;
        where a value is of another type than its field, as `"5"` is in an int, that is what it was
        read as.
        """
        try:
            data = self._dumped(event, warnings="error")
        except PydanticSerializationError:
            return self._coerced(event)
        self.read(data)
        return data

    def _coerced(self, event: Any) -> dict[str, Any]:
        data = self._dumped(self.read(self._dumped(event)))
        # To make an instance anew may change what it holds, beside the types.
        if self._dumped(self.read(data)) != data:
            raise unfit(self._name, "a value is of another type than its field")
        return data

    def _dumped(self, event: Any, *, warnings: Literal["error"] | bool = False) -> dict[str, Any]:
        dumped = self._adapter.dump_python(event, by_alias=True, warnings=warnings)
        return renamed(dumped, self._fields.of_written)

    def read(self, data: dict[str, Any]) -> Any:
        """Return an instance; see Shape."""
        return self._valid(renamed(data, self._fields.of_read))

    def value(self, event: Any, field: str) -> Any:
        """Return what an instance has in a field."""
        return event.get(field) if self._is_dict else getattr(event, field)

    def required(self) -> list[str]:
        """Return the fields without a default."""
        return sorted(self._fields.required)

    def schema(self, prefix: str) -> dict[str, Any]:
        """Return its JSON Schema; see Shape."""
        found = self._adapter.json_schema(mode="serialization", ref_template=f"{prefix}{{model}}")
        return topmost(found, self._fields.of_written)

    def _valid(self, data: dict[str, Any]) -> Any:
        try:
            return self._adapter.validate_python(data)
        except ValidationError as error:
            known = {*self.names, *self._fields.of_read.values()}
            raise unfit(self._name, private_text.faults(error, fields=known)) from None

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        try:
            found = TypeAdapter(self._cls)
            # Otherwise it would be told at the first event, in pydantic's own words.
            found.rebuild(raise_errors=True)
        except (PydanticUserError, NameError) as error:
            said = str(error).partition("\n")[0]
            raise errors.ConfigurationError(
                f"The annotations of the event class {self._cls.__qualname__} cannot be read: "
                f"{said}"
            ) from None
        return found

    @cached_property
    def _fields(self) -> _Fields:
        found = _fields_in(self._adapter.core_schema)
        wire, of_read, of_written, required = {}, {}, {}, []
        for own, field in found.items():
            inbound = field.get("validation_alias")
            inbound = inbound if isinstance(inbound, str) else own
            outbound = field.get("serialization_alias", own)
            name = own if self._is_dict else wire_name(own, outbound)
            of_read.update({own: inbound, name: inbound})
            if field.get("serialization_exclude"):
                continue
            wire[own] = of_written[outbound] = name
            if field.get("required", field["schema"]["type"] != "default"):
                required.append(name)
        require_apart(self._cls, wire)
        return _Fields(wire=wire, of_read=of_read, of_written=of_written, required=tuple(required))


def _fields_in(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the fields of pydantic's core schema, which may be wrapped in validators.

    https://docs.pydantic.dev/latest/api/pydantic_core_schema/
    """
    definitions: dict[str, Mapping[str, Any]] = {}
    while "fields" not in schema or schema["type"] == "dataclass":
        definitions |= {each["ref"]: each for each in schema.get("definitions", ())}
        reference = schema.get("schema_ref")
        schema = definitions[reference] if reference else schema["schema"]
    fields = schema["fields"]
    if isinstance(fields, dict):
        return {own: {"required": False, **field} for own, field in fields.items()}
    return {field["name"]: field for field in fields}
