"""The order in which a scan reads rows: that of MongoDB's index on `_id`, but ObjectIds last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from bson import Binary, Decimal128, MaxKey, MinKey, ObjectId, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef

__all__ = ["Bound"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UUID_SUBTYPE = 4
# What nobody uses as an id.
LAST_RANK = 126


@dataclass(frozen=True, slots=True)
class Bound:
    """A row's id, as a place in the scan's order."""

    row_id: Any

    def covers(self, row_id: Any) -> bool:
        """Say whether a row's id stands at this place or before it."""
        return _key(row_id) <= _key(self.row_id)

    @property
    def is_object_id(self) -> bool:
        """Whether all ids of other kinds stand before this place."""
        return isinstance(self.row_id, ObjectId)


def _key(row_id: Any) -> tuple[Any, ...]:
    if isinstance(row_id, ObjectId):
        return (1, row_id.binary)
    return (0, *_bson_key(row_id))


def _bson_key(value: Any) -> tuple[Any, ...]:
    for kinds, rank, key in _KINDS:
        if isinstance(value, kinds):
            return (rank, *key(value))
    return (LAST_RANK, str(value))


def _element_key(element: tuple[str, Any]) -> tuple[Any, ...]:
    kind, *rest = _bson_key(element[1])
    return (kind, element[0].encode(), *rest)


def _number_key(value: float | Decimal128) -> tuple[Any, ...]:
    number = value.to_decimal() if isinstance(value, Decimal128) else value
    is_nan = number.is_nan() if isinstance(number, Decimal) else number != number  # noqa: PLR0124
    return (0,) if is_nan else (1, number)


def _binary_key(value: UUID | bytes) -> tuple[int, int, bytes]:
    if isinstance(value, UUID):
        return (len(value.bytes), UUID_SUBTYPE, value.bytes)
    return (len(value), value.subtype if isinstance(value, Binary) else 0, bytes(value))


def _milliseconds(value: datetime | DatetimeMS) -> int:
    if isinstance(value, DatetimeMS):
        return int(value)
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return round((aware - EPOCH).total_seconds() * 1000)


# MongoDB's order of types, and within each its order of values. A bool is an int to Python, and so
# stands before it here.
# https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
_KINDS: tuple[tuple[Any, int, Callable[[Any], tuple[Any, ...]]], ...] = (
    (ObjectId, 35, lambda value: (value.binary,)),
    (bool, 40, lambda value: (value,)),
    ((int, float, Decimal128), 10, _number_key),
    (str, 15, lambda value: (value.encode(errors="surrogatepass"),)),
    ((UUID, bytes), 30, _binary_key),
    ((datetime, DatetimeMS), 45, lambda value: (_milliseconds(value),)),
    (Timestamp, 47, lambda value: (value.time, value.inc)),
    (DBRef, 20, lambda value: tuple(map(_element_key, value.as_doc().items()))),
    (Mapping, 20, lambda value: tuple(map(_element_key, value.items()))),
    (list, 25, lambda value: tuple(map(_bson_key, value))),
    (type(None), 5, lambda _: ()),
    (MinKey, -1, lambda _: ()),
    (MaxKey, 127, lambda _: ()),
)
