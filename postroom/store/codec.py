"""BSON both ways: how rows are encoded, and decoded so that nothing in them is lost."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bson
from bson import CodecOptions, Decimal128
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion, TypeRegistry
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

__all__ = [
    "LENIENT",
    "RAW",
    "READING",
    "SHOWING",
    "UNDECODABLE",
    "WRITING",
    "Row",
    "Unreadable",
    "decoded",
    "decoded_all",
    "id_in",
    "id_of",
]


def _to_bson(value: Any) -> Any:
    # What BSON lacks and JSON has a customary form for. The rest is refused by name of its type.
    match value:
        case decimal.Decimal():
            return Decimal128(value)
        case enum.Enum():
            return value.value
        case dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            return value.total_seconds()
        case set() | frozenset():
            return sorted(value, key=str)
    return value


# What users publish.
WRITING: CodecOptions[dict[str, Any]] = CodecOptions(
    uuid_representation=UuidRepresentation.STANDARD,
    type_registry=TypeRegistry(fallback_encoder=_to_bson),
)
# Documents as bytes, whatever the user's own client is set up with.
RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
# Dates that Python cannot hold and strings that are no UTF-8 must not break a whole batch.
READING: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    uuid_representation=UuidRepresentation.STANDARD,
)
LENIENT: CodecOptions[RawBSONDocument] = CodecOptions(
    document_class=RawBSONDocument,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
)
# For what people are shown: times in UTC, and nothing that cannot be decoded hides a row.
SHOWING: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
# The same as READING for documents that have to be taken apart field by field.
_READING_RAW: CodecOptions[RawBSONDocument] = READING.with_options(document_class=RawBSONDocument)
# The last one of what is shorter than it says, where it is taken apart field by field.
UNDECODABLE = (BSONError, UnicodeDecodeError, ValueError, IndexError)
# How an object with a string `$ref` begins that field: with `$id` beside it the driver makes a
# DBRef of the object, which is another thing than what was stored.
_REFERENCE = b"\x02$ref\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A row that cannot be decoded; its id where that much could be read."""

    row_id: Any
    reason: str


Row = Mapping[str, Any] | Unreadable


def decoded_all(documents: bytes) -> list[dict[str, Any]]:
    """Decode documents that stand one behind the other.

    Raises:
        bson.errors.BSONError, UnicodeDecodeError, ValueError: one of them cannot be decoded.

    """
    if b"$" not in documents or _REFERENCE not in documents:
        return bson.decode_all(documents, READING)
    return [_plain(each) for each in bson.decode_all(documents, _READING_RAW)]


def decoded(document: bytes) -> Row:
    """Decode one row, or say why that is impossible."""
    try:
        (row,) = decoded_all(document)
    except UNDECODABLE as error:
        reason = f"The row cannot be decoded ({type(error).__name__})"
        return Unreadable(row_id=id_in(document), reason=reason)
    return row


def _plain(value: Any) -> Any:
    if isinstance(value, RawBSONDocument):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


def id_in(document: bytes) -> Any:
    """Return the id of a row that may be undecodable, or None where it cannot be read."""
    # Field by field: what cannot be decoded is another one.
    try:
        return RawBSONDocument(document, LENIENT).get("_id")
    except UNDECODABLE:
        return None


def id_of(row: Row) -> Any:
    """Return the row's id, or None where it cannot be read."""
    return row.row_id if isinstance(row, Unreadable) else row["_id"]
