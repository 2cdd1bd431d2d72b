"""Shape: how events of a class are written, read and described; one for each kind of class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pydantic.alias_generators import to_camel

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["Shape", "renamed", "require_apart", "topmost", "unfit", "unwritten", "wire_name"]


class Shape(Protocol):
    """What an event class says of its events' data. Safe from any thread.

    Fields are called so in Python and in camelCase on the wire, unless the class gives them another
    name in the way of its library. Both are read.
    """

    @property
    def names(self) -> Collection[str]:
        """The fields, as they are called in Python."""

    def on_the_wire(self, field: str) -> str:
        """Return a field's name on the wire.

        Raises:
            ConfigurationError: it is not written, or the class's annotations cannot be read.

        """

    def written(self, event: Any) -> dict[str, Any]:
        """Return the data of an event for the wire; datetimes stay datetimes.

        Raises:
            InvalidEvent: they do not fit the class; the message names the fields alone.

        """

    def read(self, data: dict[str, Any]) -> Any:
        """Return an instance of the class made of data from the wire.

        Raises:
            InvalidEvent: they do not fit the class; the message names the fields alone.

        """

    def value(self, event: Any, field: str) -> Any:
        """Return what an instance has in a field."""

    def required(self) -> list[str]:
        """Return what has to be in the data, by its names on the wire."""

    def schema(self, prefix: str) -> dict[str, Any]:
        """Return its JSON Schema, which refers to its `$defs` under the prefix.

        Raises:
            PydanticUserError, TypeError: it holds what JSON Schema has no word for.

        """


def wire_name(own: str, given: str | None = None) -> str:
    """Return a field's name on the wire: the one that the class gives it, or camelCase."""
    return to_camel(own) if given is None or given == own else given


def require_apart(cls: type[Any], wire: Mapping[str, str]) -> None:
    """Refuse a class of whose fields two would be one on the wire, by their names here and there.

    Raises:
        ConfigurationError: they would; one of them would be lost.

    """
    owners: dict[str, str] = {}
    for own, name in wire.items():
        if (other := owners.setdefault(name, own)) != own:
            raise errors.ConfigurationError(
                f"The fields {other!r} and {own!r} of the event class {cls.__qualname__} would "
                f"both be {name!r} on the wire: give one of them another name there"
            )


def renamed(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return an object whose fields have other names; those without one are kept."""
    return {names.get(name, name): value for name, value in data.items()}


def unfit(name: str, faults: str) -> errors.InvalidEvent:
    """Say of which events the data do not fit, and why."""
    return errors.InvalidEvent(f"The data of {name} do not fit: {faults}")


def unwritten(cls: type[Any], field: str) -> errors.ConfigurationError:
    """Say of which class a field stands nowhere on the wire."""
    return errors.ConfigurationError(
        f"The field {field!r} of the event class {cls.__qualname__} is not written to the wire, "
        "and nothing can be keyed by it"
    )


def topmost(schema: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the schema of an object itself, where it only refers to it, by the wire's names."""
    if "$ref" in schema:
        found = schema["$defs"][schema["$ref"].rpartition("/")[2].rpartition(".")[2]]
        schema = {**found, "$defs": schema["$defs"]}
    if "properties" in schema:
        schema = {**schema, "properties": renamed(schema["properties"], names)}
    if "required" in schema:
        schema = {**schema, "required": [names.get(each, each) for each in schema["required"]]}
    return schema
