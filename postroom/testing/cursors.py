"""Cursors: documents that were found in memory, in order."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any, Self

import bson

from postroom.testing.queries import MISSING, value_at
from postroom.testing.refusal import not_faked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bson import CodecOptions

__all__ = ["Cursor"]


class Cursor:
    """Documents that were found, in order."""

    def __init__(
        self, found: Sequence[dict[str, Any]], codec: CodecOptions[Any], projection: Any = None
    ) -> None:
        self._found = list(found)
        self._projection = projection
        self._codec = codec

    def sort(self, key: Any, direction: int = 1) -> Self:
        """Put them in order, by a field or by several."""
        keys = [(key, direction)] if isinstance(key, str) else list(key)
        keys = [(each, 1) if isinstance(each, str) else each for each in keys]
        for name, way in reversed(keys):
            self._found.sort(key=_order(str(name)), reverse=way < 0)
        return self

    def skip(self, count: int) -> Self:
        """Leave the first ones out."""
        self._found = self._found[count:]
        return self

    def limit(self, count: int) -> Self:
        """Keep the first ones; 0 keeps all."""
        self._found = self._found[:count] if count else self._found
        return self

    def to_list(self, length: int | None = None) -> list[Any]:
        """Return the rest."""
        found = [*self]
        return found if length is None else found[:length]

    def close(self) -> None:
        """Do nothing."""

    def __iter__(self) -> Iterator[Any]:
        while self._found:
            yield next(self)

    def __next__(self) -> Any:
        if not self._found:
            raise StopIteration
        return bson.decode(
            bson.encode(_projected(self._found.pop(0), self._projection)), self._codec
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise not_faked(f"{name}() of a cursor")


def _projected(document: dict[str, Any], projection: Any) -> dict[str, Any]:
    if not projection:
        return document
    if not isinstance(projection, Mapping):
        projection = dict.fromkeys(projection, 1)
    if any("." in name or isinstance(value, Mapping) for name, value in projection.items()):
        raise not_faked("a projection of inner fields")
    kept = {name for name, value in projection.items() if value}
    if kept:
        kept |= set() if projection.get("_id", True) in (0, False) else {"_id"}
        return {name: value for name, value in document.items() if name in kept}
    return {name: value for name, value in document.items() if name not in projection}


def _order(name: str) -> Any:
    def compare(one: dict[str, Any], other: dict[str, Any]) -> int:
        left, right = value_at(one, name), value_at(other, name)
        missing = [each is MISSING or each is None for each in (left, right)]
        if any(missing):
            return missing[1] - missing[0]
        try:
            return int(left > right) - int(left < right)
        except TypeError:
            raise not_faked(
                f"the order of a {type(left).__name__} and a {type(right).__name__}"
            ) from None

    return cmp_to_key(compare)
