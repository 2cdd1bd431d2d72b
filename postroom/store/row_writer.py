"""RowWriter: an event made into the row that is stored, in the fields that Hermes reads too."""

from __future__ import annotations

import datetime as dt
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, cast

import bson
from bson import ObjectId
from bson.errors import InvalidDocument
from bson.raw_bson import RawBSONDocument

from postroom import carrying, errors, tracing, versions
from postroom.answering import checked_key
from postroom.declaring import event_class_of
from postroom.envelope import Envelopes
from postroom.events import DomainEvent, checked
from postroom.routing import Routing
from postroom.store import letter
from postroom.store.codec import RAW, WRITING, decoded
from postroom.store.partitioner import slot_of
from postroom.wire import OutboxField, ScheduledField

if TYPE_CHECKING:
    from postroom.cloud_events import CloudEvents
    from postroom.routing import Key
    from postroom.store.partitioner import Partitioner
    from postroom.writing import Writing

__all__ = ["Publishable", "RowWriter", "listed"]


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


class _Struct(Protocol):
    __struct_fields__: ClassVar[tuple[str, ...]]


Publishable = DomainEvent | Mapping[str, Any] | _Dataclass | _Struct

# MongoDB takes 16 MiB; a change stream, whose events hold the row and more, gives no more either.
MOST_ROW_BYTES = (16 << 20) - (64 << 10)
# Which topic an event goes to is known where it is relayed.
ANY_TOPIC = "any/any/any"
# BSONDepth::kDefaultMaxAllowableDepth less what the server keeps for itself; the row is the first.
MOST_LEVELS = 180
_LENGTH = struct.Struct("<i")


def listed(events: Publishable | Iterable[Publishable]) -> Sequence[Publishable]:
    """Return the events as a list, one event as a list of one."""
    if isinstance(events, Mapping) or event_class_of(type(events)) is not None:
        return [cast("Publishable", events)]
    return list(cast("Iterable[Publishable]", events))


class RowWriter:
    """Makes the rows of one outbox; refuses an event before anything is written.

    What it accepts the relay can send, as far as the same settings hold there: where that cannot be
    foreseen at once it makes of the row the very letter that the relay will make. It keeps the key
    that this one has.

    Raises:
        ConfigurationError: `key` is neither a field nor a function that can be asked.

    """

    def __init__(
        self,
        *,
        partitioner: Partitioner,
        key: Key | None,
        max_bytes: int,
        cloud_events: CloudEvents | None = None,
        encrypts_all: bool = False,
    ) -> None:
        self._partitioner = partitioner
        try:
            checked_key(key)
        except ValueError as error:
            raise errors.ConfigurationError(f"Outbox(): {error}") from None
        self._envelopes = Envelopes(seals_all=encrypts_all)
        self._routing = Routing(
            default=ANY_TOPIC,
            topics={},
            key=key,
            cloud_events=cloud_events,
            envelopes=self._envelopes,
        )
        self._max_bytes = max_bytes

    @classmethod
    def of(cls, writing: Writing, *, partitioner: Partitioner, key: Key | None) -> Self:
        """Make the one of an outbox, whose settings these are."""
        return cls(
            partitioner=partitioner,
            key=key,
            max_bytes=writing.max_message_bytes,
            cloud_events=writing.cloud_events,
            encrypts_all=writing.encrypts_all,
        )

    def row(
        self, event: Publishable, *, row_id: ObjectId, headers: Mapping[str, str] | None
    ) -> RawBSONDocument:
        """Return the row of one event, encoded.

        Raises:
            InvalidEvent: it has no name or data, a value without a form in BSON or in JSON, a key
                that cannot be one, or is too large.
            Exception: the key function failed for a reason that may pass.

        """
        only = self._partitioner.only
        name, encoded, key = self._keyed(event, row_id, headers, only)
        if only is None:
            encoded = _with_field(encoded, OutboxField.PARTITION, self._partitioner.of(key, row_id))
        return _fitting(name, encoded)

    def scheduled(
        self,
        event: Publishable,
        *,
        row_id: ObjectId,
        headers: Mapping[str, str] | None,
        more: Mapping[str, Any],
    ) -> RawBSONDocument:
        """Return the row of an event that is due later, with what the plan says of it.

        Raises:
            InvalidEvent: as row() does.
            Exception: the key function failed for a reason that may pass.

        """
        name, encoded, key = self._keyed(event, row_id, headers, self._partitioner.base)
        encoded = _with_field(encoded, ScheduledField.SLOT, slot_of(key, row_id))
        for field, value in more.items():
            encoded = _with_field(encoded, field, value)
        return _fitting(name, encoded)

    def _keyed(
        self,
        event: Publishable,
        row_id: ObjectId,
        headers: Mapping[str, str] | None,
        partition: str | None,
    ) -> tuple[str, bytes, str | None]:
        wire, headers = event, headers or {}
        if (known := event_class_of(type(event))) is not None:
            wire = known.to_wire(event)
            if known.version > 1:
                headers = {versions.HEADER: str(known.version), **headers}
        name, _ = checked(wire)
        row: dict[str, Any] = {
            OutboxField.ID: row_id,
            OutboxField.PARTITION: partition,
            OutboxField.OCCURRED_AT: dt.datetime.now(dt.UTC),
            OutboxField.DATA: dict(cast("Mapping[str, Any]", wire)),
        }
        if partition is None:
            del row[OutboxField.PARTITION]
        around = carrying.carried()
        if not tracing.is_on():
            return name, *self._encoded(name, row, {**around, **headers})
        with tracing.creating(name, str(row_id)) as carried:
            return name, *self._encoded(name, row, {**around, **carried, **headers})

    def _encoded(
        self, name: str, row: dict[str, Any], headers: Mapping[str, str]
    ) -> tuple[bytes, str | None]:
        if headers:
            row[OutboxField.HEADERS] = headers
        is_sealed = self._envelopes.wants(name)
        if is_sealed:
            # For a relay that does not know the class, and so that one without keys sends nothing.
            row[OutboxField.ENCRYPTED] = True
        encoded = _encoded(name, row)
        _require_depth(name, encoded)
        known = letter.foreseen(
            row[OutboxField.DATA],
            headers,
            self._routing,
            self._max_bytes - letter.SEALED_BYTES * is_sealed,
        )
        key = self._key_when_sent(name, encoded) if known is None else known.key
        return encoded if key is None else _with_field(encoded, OutboxField.KEY, key), key

    def _key_when_sent(self, name: str, encoded: bytes) -> str | None:
        try:
            return letter.draft(decoded(encoded), self._routing, self._max_bytes).key
        except errors.Poison as poison:
            raise errors.InvalidEvent(
                f"The event {name[:100]!r} could never be sent: {poison}; nothing was written"
            ) from poison.__cause__
        except errors.RoutingFailed as passing:
            failure = passing.__cause__ or passing
        # There is no term here, and the function is the caller's own.
        raise failure


def _encoded(name: str, row: Mapping[str, Any]) -> bytes:
    try:
        return bson.encode(row, codec_options=WRITING)
    except (InvalidDocument, ArithmeticError, ValueError, RecursionError) as error:
        # The driver's sentence quotes the whole document, which is private.
        kind = re.search(r"of type: <class '([^']+)'>$", str(error))
        what = f"a {kind.group(1)}" if kind else type(error).__name__
        raise errors.InvalidEvent(
            f"The event {name[:100]!r} holds a value that cannot be stored ({what}); "
            "nothing was written"
        ) from None


def _require_depth(name: str, encoded: bytes) -> None:
    """Refuse a row that is nested more deeply than MongoDB stores.

    Raises:
        InvalidEvent: it is.

    """
    # Each level takes seven bytes, the type of an object or an array among them: nearly no row has
    # so many of these that it has to be looked at.
    if len(encoded) < MOST_LEVELS * 7 or encoded.count(3) + encoded.count(4) < MOST_LEVELS - 1:
        return
    level, values = 1, _within([decoded(encoded)])
    while values := [each for value in values for each in _within(value)]:
        level += 1
        if level > MOST_LEVELS:
            raise errors.InvalidEvent(
                f"The event {name[:100]!r} is nested more deeply than MongoDB stores, which is "
                f"{MOST_LEVELS} levels with the row's own three; nothing was written"
            )


def _within(value: Any) -> list[Any]:
    found = value.values() if isinstance(value, dict) else value
    return [each for each in found if isinstance(each, (dict, list))]


def _fitting(name: str, encoded: bytes) -> RawBSONDocument:
    if len(encoded) > MOST_ROW_BYTES:
        raise errors.InvalidEvent(
            f"The event {name[:100]!r} has {len(encoded)} bytes, more than MongoDB takes; "
            "nothing was written"
        )
    return RawBSONDocument(encoded, RAW)


def _with_field(document: bytes, name: str, value: Any) -> bytes:
    # Put behind the others: to encode all of them anew would cost as much as the first time.
    field = bson.encode({name: value})[4:-1]
    return _LENGTH.pack(len(document) + len(field)) + document[4:-1] + field + b"\x00"
