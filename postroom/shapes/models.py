"""ModelShape: of a pydantic model, such as every DomainEvent is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import AliasChoices, AliasPath, ValidationError

from postroom import private_text
from postroom.shapes.shape import require_apart, unfit, unwritten

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pydantic import BaseModel

__all__ = ["ModelShape"]


class ModelShape:
    """Of a pydantic model, whose config says how its fields are called on the wire."""

    def __init__(self, cls: type[BaseModel], name: str) -> None:
        self._cls = cls
        self._name = name
        if cls.__pydantic_complete__:
            written = (own for own in sorted(self.names) if not self._is_left_out(own))
            require_apart(cls, {own: self.on_the_wire(own) for own in written})

    @property
    def names(self) -> Collection[str]:
        """The fields, and those that are computed."""
        return {*self._cls.model_fields, *self._cls.model_computed_fields}

    def on_the_wire(self, field: str) -> str:
        """Return a field's name on the wire, now that all types it names are there; see Shape."""
        self._cls.model_rebuild(raise_errors=False)
        found = self._cls.model_fields.get(field)
        if found is not None:
            if self._is_left_out(field):
                raise unwritten(self._cls, field)
            return found.serialization_alias or found.alias or field
        return self._cls.model_computed_fields[field].alias or field

    def written(self, event: BaseModel) -> dict[str, Any]:
        """Return its data; it was validated when it was made."""
        return event.model_dump(by_alias=True)

    def read(self, data: dict[str, Any]) -> BaseModel:
        """Return an instance; see Shape. It computes its computed fields itself."""
        if computed := self._cls.model_computed_fields:
            # As extra fields they would make it another than what was published, or be refused.
            names = {found.alias or own for own, found in computed.items()} - self._known()
            data = {name: value for name, value in data.items() if name not in names}
        try:
            return self._cls.model_validate(data)
        except ValidationError as error:
            raise unfit(self._name, private_text.faults(error, fields=self._known())) from None

    def value(self, event: BaseModel, field: str) -> Any:
        """Return what an instance has in a field."""
        return getattr(event, field)

    def required(self) -> list[str]:
        """Return the fields without a default."""
        return sorted(
            str(field.serialization_alias or field.alias or own)
            for own, field in self._cls.model_fields.items()
            if field.is_required()
        )

    def schema(self, prefix: str) -> dict[str, Any]:
        """Return its JSON Schema; see Shape."""
        return self._cls.model_json_schema(mode="serialization", ref_template=f"{prefix}{{model}}")

    def _is_left_out(self, field: str) -> bool:
        found = self._cls.model_fields.get(field)
        return found is not None and bool(found.exclude)

    def _known(self) -> set[str]:
        """Return the names by which pydantic may call the fields."""
        aliases = {
            name
            for field in self._cls.model_fields.values()
            for alias in (field.alias, field.validation_alias)
            for name in _names_of(alias)
        }
        return aliases | set(self._cls.model_fields)


def _names_of(alias: str | AliasPath | AliasChoices | None) -> Iterator[str]:
    """Return the fields of an object in which pydantic looks for what has this alias."""
    match alias:
        case str():
            yield alias
        case AliasPath(path=[str(first), *_]):
            yield first
        case AliasChoices(choices=choices):
            for each in choices:
                yield from _names_of(each)
