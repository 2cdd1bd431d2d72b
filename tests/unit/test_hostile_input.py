"""Whatever strangers write, every decoder reads it or refuses it: in bounded time and memory.

A refusal is one kind of error, and a line that forges nothing in a log or on a terminal.
"""

from __future__ import annotations

import contextlib
import functools
import time
import tracemalloc
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import bson
import click
import orjson
import pytest
from bson import Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from postroom import ConfigurationError, InvalidEvent, OutboxError, errors, events, topics, wire
from postroom.celery.commands.options import WHEN
from postroom.celery.commands.printing import json_line
from postroom.celery.commands.terminal import shown
from postroom.envelope import Envelopes
from postroom.inbox.parking.letters import DeadLetter
from postroom.inbox.receiving.selection import Selection
from postroom.inbox.scheduling.delivery import Delivery, footprint
from postroom.operations import quarantined
from postroom.operations.filters import Filter
from postroom.routing import Routing
from postroom.settings import Settings
from postroom.store import codec, letter, partitioning_record
from postroom.wire import OutboxField, PartitioningField

if TYPE_CHECKING:
    from collections.abc import Callable

    import pulsar

# What moves cursors, turns writing round, ends lines, or is no character at all.
EVIL = "\x1b[2J\x1b]0;t\x07\r\n\x00\x9b\u202e\u2028\ufeff<script>alert(1)</script>[red]"
EVIL_TEXT = st.text(max_size=20) | st.just(EVIL) | st.just(EVIL * 500)
ROUTING = Routing(default="a/b/c", topics={"A*": "a/b/d"}, key=lambda _, data: data.get("k"))
LONGEST_REFUSAL = 2500
SECONDS = 5.0

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(
        [
            *(ObjectId(), Int64(5), Decimal128("NaN"), MinKey(), MaxKey(), Timestamp(1, 2)),
            *(Regex("("), datetime(2026, 1, 1, tzinfo=UTC), "\u2028", EVIL),
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5).filter(lambda t: "\0" not in t), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from([v for n, v in vars(OutboxField).items() if n.isupper()])


def require_line(refused: BaseException) -> None:
    """Make sure that a refusal is one line of bounded length, which forges nothing."""
    assert str(refused).isprintable(), repr(str(refused))
    assert len(str(refused)) < LONGEST_REFUSAL


def attempt(decode: Callable[[], Any], *kinds: type[Exception]) -> Any:
    """Decode, in bounded time; return None for a refusal of these kinds."""
    began = time.monotonic()
    try:
        return decode()
    except kinds as refused:
        require_line(refused)
        return None
    finally:
        assert time.monotonic() - began < SECONDS


# ROWS


@given(st.dictionaries(FIELDS, VALUES, max_size=8), VALUES)
@example(
    {
        "data": {"name": EVIL, "data": {"k": EVIL}},
        "headers": {EVIL.replace("\0", ""): EVIL},
        "key": EVIL,
    },
    1,
)
@example({"data": {"name": "A", "data": {}}, "encrypted": [], "deliverAt": "x"}, None)
@example({"data": {"name": "A", "data": {}}, "occurredAt": Timestamp(1, 1)}, b"\x00")
def test_a_row_becomes_a_letter_or_poison(row: dict[str, Any], row_id: Any) -> None:
    """Whatever other programs put into each of its fields."""
    found = codec.decoded(bson.encode({**row, "_id": row_id}, codec_options=codec.WRITING))
    made = attempt(lambda: letter.write(found, ROUTING, 1 << 20), errors.Poison)
    if made is not None:
        assert isinstance(made.payload, bytes)
        assert all(type(text) is str for text in (*made.headers, *made.headers.values()))
        made.id.encode()
        assert events.decode(made.payload)


WHOLE = bson.encode(
    {
        "_id": ObjectId(),
        "partitionKey": "default",
        "occurredAt": datetime(2026, 1, 1, tzinfo=UTC),
        "data": {"name": "A", "data": {"$ref": "x", "$id": 1, "n": [1, {"a": 2.5}], "b": b"\x00"}},
        "headers": {"h": "v"},
        "key": "k",
    }
)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_bson_are_a_row_that_is_unreadable(document: bytes) -> None:
    """Never an error, which would break a whole batch."""
    with contextlib.suppress(*codec.UNDECODABLE):
        bson.decode(document)
        return
    found = codec.decoded(document)
    assert isinstance(found, codec.Unreadable)
    assert found.reason.isprintable()


@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
@example([(WHOLE.index(b"_id"), 1)])
def test_a_row_with_some_bytes_changed_is_read_or_poison(changes: list[tuple[int, int]]) -> None:
    """As what a disk or a stranger makes of it."""
    changed = bytearray(WHOLE)
    for place, value in changes:
        changed[place] = value
    found = codec.decoded(bytes(changed))
    attempt(lambda: letter.write(found, ROUTING, 1 << 20), errors.Poison)
    codec.id_of(found) if isinstance(found, codec.Unreadable) else found.get("_id")


# MESSAGES


class Message:
    """What the client hands over, with anything in it."""

    def __init__(self, payload: bytes, properties: Any, key: Any, at: int) -> None:
        self._payload, self._properties, self._key, self._at = payload, properties, key, at

    def data(self) -> bytes:
        """Return the payload."""
        return self._payload

    def properties(self) -> Any:
        """Return the properties, or fail as the client does over what is no UTF-8."""
        if self._properties is None:
            b"\xff".decode()
        return self._properties

    def partition_key(self) -> str:
        """Return the key."""
        return str(self._key)

    def ordering_key(self) -> str:
        """Return none."""
        return ""

    def topic_name(self) -> str:
        """Return a topic through which dead letters come back."""
        return "persistent://public/default/t-test-REDRIVE"

    def event_timestamp(self) -> int:
        """Return a time of any kind."""
        return self._at

    publish_timestamp = event_timestamp

    def encryption_context(self) -> None:
        """Return that Pulsar's client has not encrypted it."""

    def message_id(self) -> Any:
        """Return a place."""
        return SimpleNamespace(
            ledger_id=lambda: 1, entry_id=lambda: 2, batch_index=lambda: -1, partition=lambda: -1
        )


OURS = [value for name, value in vars(wire).items() if name.isupper() and isinstance(value, str)]
PROPERTIES = st.none() | st.dictionaries(
    st.sampled_from(OURS) | st.text(max_size=5),
    EVIL_TEXT | st.sampled_from(["9" * 5000, "-1", "1e9", "\u0665", "aes-256-gcm"]),
    max_size=6,
)
PAYLOADS = (
    st.binary(max_size=60)
    | VALUES.map(lambda value: orjson.dumps(value, default=str))
    | st.fixed_dictionaries({"name": EVIL_TEXT, "data": st.dictionaries(EVIL_TEXT, st.none())}).map(
        orjson.dumps
    )
)
OPENER = Envelopes({"k": bytes(32)})


@given(PAYLOADS, PROPERTIES, EVIL_TEXT, st.sampled_from([0, -1, 1 << 62, (1 << 63) - 1, 1]))
def test_a_message_is_an_event_or_a_dead_letter(
    payload: bytes, properties: dict[str, str] | None, key: str, at: int
) -> None:
    """Also what comes back from the dead letters, whoever put it there."""
    message: pulsar.Message = Message(payload, properties, key, at)
    delivery = Delivery.of(message, source=None, size=footprint(payload))  # type: ignore[arg-type]
    assert attempt(lambda: topics.base_topic(delivery.origin), InvalidEvent)
    assert delivery.origin.startswith("persistent://public/default/t")
    found = attempt(lambda: delivery.event(OPENER), InvalidEvent)
    if found is not None:
        assert found.position is None or found.position >= 0


@given(PAYLOADS, PROPERTIES, EVIL_TEXT)
def test_a_dead_letter_is_listed_whatever_it_says_of_itself(
    payload: bytes, properties: dict[str, str] | None, key: str
) -> None:
    """In lines that a terminal just shows, and JSON that is one line of ASCII."""
    message: pulsar.Message = Message(payload, properties, key, 0)
    found = DeadLetter.of(message, OPENER)
    assert found.attempts >= 0
    for text in (found.id, found.name, found.key, found.reason, found.handler, found.topic):
        assert shown(text).isprintable()
        assert len(shown(text)) < 25_000
    assert json_line(found).isascii()
    assert "\n" not in json_line(found)
    assert found.identity


CORPUS = {
    "deep": b'{"name":"A","data":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "deep objects": b'{"name":"A","data":' + b'{"":' * 50_000 + b"1" + b"}" * 50_001,
    "long number": b'{"name":"A","data":{"x":' + b"9" * 1_000_000 + b"}}",
    "long exponent": b'{"name":"A","data":{"x":1e' + b"9" * 10_000 + b"}}",
    "half": b'{"name":"A","data":{"x":"' + b"y" * 1_000_000,
    "surrogate": b'{"name":"\\ud800","data":{}}',
    "twice": b'{"name":"A","name":5,"data":{}}',
    "nothing": b"",
    "bom": b'\xef\xbb\xbf{"name":"A","data":{}}',
    "name of megabytes": b'{"name":"' + b"\x1b" * 10 + b"x" * 1_000_000 + b'","data":[]}',
    "many keys": b'{"name":"A","data":{' + b",".join(b'"%d":0' % n for n in range(100_000)) + b"}}",
    "objects": b'{"name":"A","data":{"x":[' + b",".join([b"{}"] * 300_000) + b"]}}",
}


@pytest.mark.parametrize("payload", CORPUS.values(), ids=CORPUS)
def test_nothing_costs_more_than_it_was_taken_for(payload: bytes) -> None:
    """Neither time nor memory, also where it is refused, and no refusal quotes it."""
    tracemalloc.start()
    try:
        attempt(lambda: events.decode(payload), InvalidEvent)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # For a moment the decoder itself takes twelve times the payload, of one message at a time.
    assert peak <= max(2 * footprint(payload), 13 * len(payload)) + (1 << 20)


# RECORDS


@given(
    st.dictionaries(
        st.sampled_from([v for n, v in vars(PartitioningField).items() if n.isupper()]),
        VALUES | st.sampled_from([10**9, 0, -1, 4]),
        max_size=7,
    )
)
@example({"_id": "default", "count": 10**9, "generation": 0})
@example({"_id": "default", "count": 2, "generation": 1, "closed": [{"count": 1 << 60}]})
@example({"_id": EVIL, "count": 2, "generation": 0, "nextCount": "x"})
def test_a_record_of_a_partitioning_is_read_or_refused(row: dict[str, Any]) -> None:
    """Also one that names a thousand million outbox partitions."""
    found = attempt(lambda: partitioning_record.from_row(row), OutboxError)
    if found is not None:
        assert len(found.partitioning.names) <= 1000
        assert isinstance(found.closed_names, frozenset)


# COMMAND LINE


@given(EVIL_TEXT | st.from_regex(r"[0-9]{1,30}[smhd]") | st.datetimes().map(str))
@example("0001-01-01T00:00+23:59")
@example("9" * 5000 + "d")
@example("999999d")
def test_a_time_is_read_or_refused(text: str) -> None:
    """By click's own kind of error."""
    try:
        found: object = WHEN.convert(text, None, None)
    except click.UsageError as refused:
        found = shown(refused.message)
        assert len(str(found)) < LONGEST_REFUSAL
    assert isinstance(found, (datetime, str))


@given(EVIL_TEXT | st.text(st.characters(categories=("Cs", "Cc", "Nd", "Lu")), max_size=5))
@example("{" * 5000)
@example('{"$binary":{"base64":"x","subType":"zz"}}')
@example('{"$code":"x","$scope":{}}')
def test_a_filter_and_an_id_are_read_or_refused(text: str) -> None:
    """Whatever stands behind --key, --id, --topic and --name."""
    for name in ("key", "name", "kind", "topic", "handler"):
        given_text: dict[str, Any] = {name: text}
        attempt(functools.partial(Filter, **given_text), ConfigurationError)
    attempt(lambda: Filter(ids=(text,)), ConfigurationError)
    if attempt(lambda: Filter(key=text), ConfigurationError) is not None:
        assert quarantined.forms_of(text)
    attempt(lambda: topics.checked(text), ValueError)
    settings = Settings()
    attempt(lambda: Selection.of(settings, "test", [text]), ConfigurationError)
    attempt(lambda: Selection.of(settings, "test", [f"re:a/b/{text}"]), ConfigurationError)


@given(EVIL_TEXT)
def test_what_is_shown_moves_no_cursor(text: str) -> None:
    """Neither on a terminal nor in a file that somebody prints there."""
    assert shown(text).isprintable()
    assert json_line({"x": text}).isascii()
