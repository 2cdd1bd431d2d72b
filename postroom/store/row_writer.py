"""RowWriter: an event made into the row that is stored, in the fields that Hermes reads too."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import bson
from bson import ObjectId
from bson.errors import InvalidDocument
from bson.raw_bson import RawBSONDocument

from postroom import errors
from postroom.events import DomainEvent, checked
from postroom.store.codec import RAW, WRITING
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from postroom.routing import Key

__all__ = ["Publishable", "RowWriter", "listed"]

Publishable = DomainEvent | Mapping[str, Any]

MAX_BYTES = 5 * 1024 * 1024 - 16 * 1024


def listed(events: Publishable | Iterable[Publishable]) -> Sequence[Publishable]:
    """Return the events as a list, one event as a list of one."""
    if isinstance(events, (DomainEvent, Mapping)):
        return [events]
    return list(events)


class RowWriter:
    """Makes the rows of one outbox partition; refuses an event before anything is written."""

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
            OutboxField.ID: row_id,
            OutboxField.PARTITION: self._partition,
            OutboxField.OCCURRED_AT: dt.datetime.now(dt.UTC),
            OutboxField.DATA: dict(wire),
        }
        key = self._key_of(name, data)
        if key is not None:
            row[OutboxField.KEY] = key
        if headers:
            row[OutboxField.HEADERS] = dict(headers)
        return RawBSONDocument(self._encoded(name, row), RAW)

    def _key_of(self, name: str, data: Mapping[str, Any]) -> str | None:
        if self._key is None:
            return None
        value = data.get(self._key) if isinstance(self._key, str) else self._key(name, data)
        return value if value is None or isinstance(value, str) else str(value)

    def _encoded(self, name: str, row: Mapping[str, Any]) -> bytes:
        try:
            encoded = bson.encode(row, codec_options=WRITING)
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
