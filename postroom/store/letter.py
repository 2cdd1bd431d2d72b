"""A letter: one outbox row made ready to be sent, or found to be poison; one rule for both sides.

The relay sends letters, and publish() accepts no event of which none can be made.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from postroom import errors, events, wire
from postroom.cloud_events import SEQUENCE
from postroom.store.codec import Row, Unreadable
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from postroom.envelope import Envelopes
    from postroom.routing import Routing
    from postroom.topics import Topic

__all__ = ["SEALED_BYTES", "Foreseen", "Letter", "draft", "foreseen", "measured", "write"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
DAY_SECONDS = 86_400
# What a property and the message's own fields cost at most beside their text.
OVERHEAD_BYTES = 256
SHORT_KEY_BYTES = 100
HEADER_BYTES = 8
# What a sealed message costs beside, at most: salt, nonce, tag, and the properties that say so.
SEALED_BYTES = 256
CONTENT_TYPE = "content-type"
# Looked up once: rows are read in the relay's hot loop.
ROW_ID, DATA, KEY = OutboxField.ID, OutboxField.DATA, OutboxField.KEY
ENCRYPTED = OutboxField.ENCRYPTED
HEADERS, OCCURRED_AT = OutboxField.HEADERS, OutboxField.OCCURRED_AT
DELIVER_AT = OutboxField.DELIVER_AT
RESERVED = frozenset({wire.ID, wire.POSITION, wire.ENVELOPE, wire.ENVELOPE_KEY})
# What the relay adds to a letter's headers as it sends it.
ADDED = RESERVED | {SEQUENCE}
NO_HEADERS: Mapping[str, str] = {}


class Letter(NamedTuple):
    """What one message will hold; times are milliseconds since 1970 in UTC, 0 for none.

    `size` is the payload's bytes, and the headers' and the key's where they are worth counting.
    """

    id: str
    topic: Topic
    payload: bytes
    key: str | None
    occurred_at: int
    deliver_at: int
    headers: Mapping[str, str]
    size: int


def write(row: Row, routing: Routing, max_bytes: int) -> Letter:
    """Make a letter of an outbox row, of at most `max_bytes` with all that a message costs.

    Raises:
        Poison: the row cannot be decoded, is no event, cannot be routed, is too large, or is to be
            encrypted and there is no key.
        RoutingFailed: a function of the routing failed for a reason that passes.

    """
    made = draft(row, routing, max_bytes)
    envelopes = routing.envelopes
    if isinstance(row, Unreadable) or not is_sealed(row, envelopes):
        return made
    payload, said = envelopes.sealed(made.payload, event_id=made.id, key=made.key)
    headers = {**made.headers, **said}
    if CONTENT_TYPE in headers:
        headers[CONTENT_TYPE] = "application/octet-stream"
    size = made.size + len(payload) - len(made.payload)
    return made._replace(payload=payload, headers=headers, size=size)


def is_sealed(row: Mapping[str, Any], envelopes: Envelopes) -> bool:
    """Say whether a row's payload is to be sealed: as it says itself, or its event's class."""
    return bool(row.get(ENCRYPTED)) or envelopes.wants(row[DATA]["name"])


def draft(row: Row, routing: Routing, max_bytes: int) -> Letter:
    """Make the letter that write() seals where that is asked for; raises the same."""
    if isinstance(row, Unreadable):
        raise errors.Poison(row.reason)
    try:
        event, identifier = row[DATA], row[ROW_ID]
        name, data = event["name"], event["data"]
    except (KeyError, TypeError):
        raise errors.Poison(_what_is_wrong(row)) from None
    if type(name) is not str or type(data) is not dict or not name:
        raise errors.Poison(_what_is_wrong(row))
    payload = events.encode(event)
    key = row.get(KEY)
    if key is not None and type(key) is not str:
        key = _text(key, "key")
    if key is None:
        key = routing.key(name, data)
    headers = _headers(row[HEADERS]) if HEADERS in row else NO_HEADERS
    row_id = events.id_text(identifier)
    occurred_at = _milliseconds(row.get(OCCURRED_AT))
    if routing.cloud_events is not None:
        headers = routing.cloud_events.dress(
            headers, event_id=row_id, name=name, key=key, occurred_at=occurred_at
        )
    size = len(payload)
    if headers or (key and (len(key) > SHORT_KEY_BYTES or not key.isascii())):
        size += _size_beside(key, headers)
    if size > max_bytes - OVERHEAD_BYTES - SEALED_BYTES:
        # Checked here, since the client reports a message that is too large to nobody.
        _require_room(row, routing, size, max_bytes)
    return Letter(
        row_id,
        routing.topic(name, data),
        payload,
        key,
        occurred_at,
        _milliseconds(row[DELIVER_AT]) if DELIVER_AT in row else 0,
        headers,
        size,
    )


def _require_room(row: Mapping[str, Any], routing: Routing, size: int, max_bytes: int) -> None:
    whole = size + OVERHEAD_BYTES + SEALED_BYTES * is_sealed(row, routing.envelopes)
    if whole > max_bytes:
        raise errors.Poison(
            f"The event takes {whole} bytes, and the broker {max_bytes} at most "
            "(POSTROOM_MAX_MESSAGE_BYTES)"
        )


def measured(payload: bytes, key: str | None, properties: Mapping[str, str]) -> int:
    """Count the bytes of a message, as well of a letter as of what a topic has of it.

    Without what the relay adds, so that both are the same, and one compares with another.
    """
    own = {name: value for name, value in properties.items() if name not in ADDED}
    return len(payload) + _size_beside(key, own)


class Foreseen(NamedTuple):
    """The key of a letter that is sure to be made."""

    key: str | None


def foreseen(
    event: dict[str, Any], headers: Mapping[str, str], routing: Routing, max_bytes: int
) -> Foreseen | None:
    """Say what write() will make of an event and its headers, at a quarter of its cost.

    None where only write() can tell, of the row as MongoDB will give it back: what the event holds
    may have no form in JSON, the key or a header is no plain text, they are to become a CloudEvent,
    or the size is near the limit.
    """
    size = events.plain_size(event)
    if size is None or routing.cloud_events is not None:
        return None
    for name, value in headers.items():
        if type(value) is not str or not (name + value).isascii():
            return None
        size += len(name) + len(value) + HEADER_BYTES
    rule, key = routing.key_rule(event["name"]), None
    if rule is not None:
        key = event["data"].get(rule) if type(rule) is str else None
        if type(key) is not str or not key.isascii():
            return None
        size += len(key)
    return Foreseen(key) if size <= max_bytes - OVERHEAD_BYTES else None


def _what_is_wrong(row: Mapping[str, object]) -> str:
    if DATA not in row:
        return "The row has no `data`"
    if ROW_ID not in row:
        return "The row has no `_id`"
    try:
        events.checked(row[DATA])
    except errors.InvalidEvent as error:
        return str(error)
    return "The row is no event"


def _milliseconds(value: object) -> int:
    # Python's range of dates is exceeded by rows of other programs; such a time is left out.
    if not isinstance(value, datetime):
        return 0
    since = value - EPOCH
    return (since.days * DAY_SECONDS + since.seconds) * 1000 + since.microseconds // 1000


def _text(value: object, what: str) -> str | None:
    try:
        return events.text(value)
    except errors.Poison as poison:
        raise errors.Poison(f"The row's {what} cannot be sent: {poison}") from None


def _headers(headers: object) -> Mapping[str, str]:
    if headers is None:
        return NO_HEADERS
    if not isinstance(headers, Mapping):
        raise errors.Poison("The row's `headers` are no object")
    # Ours come first, and readers differ in which of two properties of one name they take.
    found = {
        name: value if type(value) is str else _text(value, "headers")
        for name, value in headers.items()
        if name not in RESERVED
    }
    return {name: value for name, value in found.items() if value is not None}


def _size_beside(key: str | None, headers: Mapping[str, str]) -> int:
    texts = (key or "", *headers, *headers.values())
    return sum(len(text.encode()) for text in texts) + HEADER_BYTES * len(headers)
