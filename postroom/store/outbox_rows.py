"""The outbox row: how an event is stored, in the fields that Hermes for MongoDB reads too."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import bson
from bson import CodecOptions, Decimal128, ObjectId
from bson.binary import UuidRepresentation
from bson.codec_options import TypeRegistry
from bson.errors import InvalidDocument
from bson.raw_bson import RawBSONDocument

from postroom import errors
from postroom.events import DomainEvent, checked

__all__ = ["Key", "Publishable", "RowWriter", "listed"]

Publishable = DomainEvent | Mapping[str, Any]
Key = str | Callable[[str, Mapping[str, Any]], str | None]

MAX_BYTES = 5 * 1024 * 1024 - 16 * 1024


def listed(events: Publishable | Iterable[Publishable]) -> Sequence[Publishable]:
    """Return the events as a list, one event as a list of one."""
    if isinstance(events, (DomainEvent, Mapping)):
        return [events]
    return list(events)


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


_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    uuid_representation=UuidRepresentation.STANDARD,
    type_registry=TypeRegistry(fallback_encoder=_to_bson),
)
# Whatever the user's own client is set up with, these documents are bytes already.
RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


class RowWriter:
    """Makes the rows of one partition; refuses an event before anything is written."""

    def __init__(self, *, partition: str, key: Key | None, max_bytes: int = MAX_BYTES) -> None:
        self._partition = partition
        self._key = key
        self._max_bytes = max_bytes

    def row(
        self, event: Publishable, *, row_id: ObjectId, headers: Mapping[str, str] | None
    ) -> RawBSONDocument:
        """Return the row of one event, encoded.

        Raises:
            InvalidEvent: it has no name or data, a value without a form in BSON, or is too large.

        """
        wire = event.to_wire() if isinstance(event, DomainEvent) else event
        name, data = checked(wire)
        row: dict[str, Any] = {
            "_id": row_id,
            "partitionKey": self._partition,
            "occurredAt": dt.datetime.now(dt.UTC),
            "data": dict(wire),
        }
        key = self._key_of(name, data)
        if key is not None:
            row["key"] = key
        if headers:
            row["headers"] = dict(headers)
        return RawBSONDocument(self._encoded(name, row), RAW)

    def _key_of(self, name: str, data: Mapping[str, Any]) -> str | None:
        if self._key is None:
            return None
        value = data.get(self._key) if isinstance(self._key, str) else self._key(name, data)
        return value if value is None or isinstance(value, str) else str(value)

    def _encoded(self, name: str, row: Mapping[str, Any]) -> bytes:
        try:
            encoded = bson.encode(row, codec_options=_CODEC)
        except (InvalidDocument, OverflowError, ValueError, RecursionError) as error:
            # The driver's sentence quotes the whole document, which is private.
            kind = re.search(r"of type: <class '([^']+)'>$", str(error))
            what = f"a {kind.group(1)}" if kind else type(error).__name__
            raise errors.InvalidEvent(
                f"The event {name!r} holds a value that cannot be stored ({what}); "
                "nothing was written"
            ) from None
        if len(encoded) > self._max_bytes:
            raise errors.InvalidEvent(
                f"The event {name!r} has {len(encoded)} bytes, more than the {self._max_bytes} "
                "that the broker takes; nothing was written"
            )
        return encoded
