"""Row ids: the same ones in every try of a transaction."""

from __future__ import annotations

from bson import ObjectId

__all__ = ["RowIds"]


class RowIds:
    """Row ids in order; again() begins from the first, for a callback that runs again."""

    def __init__(self) -> None:
        self._made: list[ObjectId] = []
        self._next = 0

    def __iter__(self) -> RowIds:
        return self

    def __next__(self) -> ObjectId:
        if self._next == len(self._made):
            self._made.append(ObjectId())
        self._next += 1
        return self._made[self._next - 1]

    def again(self) -> RowIds:
        """Begin from the first one again."""
        self._next = 0
        return self
