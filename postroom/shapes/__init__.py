"""Shapes: what an event class says of its events' data, in the words of the library it is of."""

from __future__ import annotations

import dataclasses
from typing import Any

from postroom.shapes import structs
from postroom.shapes.annotated import AnnotatedShape
from postroom.shapes.models import ModelShape
from postroom.shapes.shape import Shape

__all__ = ["ModelShape", "Shape", "shape_of"]


def shape_of(cls: type[Any], name: str) -> Shape | None:
    """Return the shape of a dataclass, TypedDict or msgspec struct, for events of a name.

    None stands for any other class.

    Raises:
        ConfigurationError: its instances are written as no object with fields.

    """
    if structs.is_struct(cls):
        return structs.StructShape(cls, name)
    # Of typing and of typing_extensions, whose own tests know one kind each.
    is_typed_dict = issubclass(cls, dict) and hasattr(cls, "__required_keys__")
    return AnnotatedShape(cls, name) if is_typed_dict or dataclasses.is_dataclass(cls) else None
