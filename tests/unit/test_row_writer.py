"""The write side: what it accepts the relay can send, and what it refuses the relay could not."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, ObjectId, Regex, Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom import ConfigurationError, DomainEvent, InvalidEvent
from postroom.errors import Poison
from postroom.routing import Routing
from postroom.store import letter
from postroom.store.codec import RAW, WRITING, decoded
from postroom.store.partitioner import Partitioner
from postroom.store.row_writer import RowWriter
from postroom.store.values import DEFAULT_PARTITION

LIMIT = 20_000
ROUTING = Routing(default="a/b/c", topics={}, key=None)


def writer(key: Any = None, max_bytes: int = LIMIT) -> RowWriter:
    """Return a writer."""
    return RowWriter(partitioner=Partitioner(DEFAULT_PARTITION, 1), key=key, max_bytes=max_bytes)


def event(**data: Any) -> dict[str, Any]:
    """Return an event."""
    return {"name": "Tried", "data": data}


def stored(
    wire: Any, *, headers: Any = None, key: Any = None, max_bytes: int = LIMIT
) -> dict[str, Any]:
    """Return what the relay reads of an event that was published."""
    row = writer(key, max_bytes).row(wire, row_id=ObjectId(), headers=headers)
    found = decoded(bytes(row.raw))
    assert isinstance(found, dict)
    return found


def sent(row: Any, max_bytes: int = LIMIT) -> letter.Letter:
    """Return the letter of a row."""
    return letter.write(row, ROUTING, max_bytes)


class Kind(enum.Enum):
    """A sample."""

    ONE = "one"


EAST, WEST = dt.timezone(dt.timedelta(hours=9)), dt.timezone(dt.timedelta(hours=-9))
odd = st.sampled_from(
    [
        *(Regex("x"), Code("x"), MaxKey(), Timestamp(1, 1), DBRef("a", 1), object(), 1j, 2**70),
        *("\ud800", b"\xff", Binary(b"x", 200), Binary.from_uuid(uuid.UUID(int=7)), Int64(2**60)),
        *(Decimal128("NaN"), decimal.Decimal("1.10"), uuid.UUID(int=1), Kind.ONE, {1, 2}),
        *(dt.date(2026, 1, 2), dt.time(1), dt.timedelta(1), float("inf"), 5e9),
        *(dt.datetime(1, 1, 1, tzinfo=zone) for zone in (dt.UTC, EAST)),
        *(dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, zone) for zone in (dt.UTC, WEST)),
        {"$ref": "#/a", "$id": "x"},
        {"$ref": "a", "$id": {"$ref": "b", "$id": 1}, "z": 1},
        {"$ref": "a", "$db": "d", "$id": None},
        {1: 2},
        {"a\0": 1},
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | odd,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(["$ref", "$id", "$a.b"]), inner, max_size=4)
    ),
    max_leaves=12,
)
headers_of = st.none() | st.dictionaries(st.text(max_size=9), values, max_size=3)


@settings(max_examples=500)
@given(
    name=st.text(),
    data=st.dictionaries(st.text() | st.sampled_from(["key", "key"]), values, max_size=5),
    headers=headers_of,
)
def test_what_publish_accepts_is_never_poison(
    name: str, data: dict[str, Any], headers: Any
) -> None:
    """And it is sent under the key that it was given."""
    try:
        row = stored({"name": name, "data": data}, headers=headers, key="key")
    except InvalidEvent:
        return
    assert sent(row).key == row.get("key")


storable = st.dictionaries(st.text(st.characters(exclude_characters="\0")), values, max_size=5)


@settings(max_examples=500)
@given(data=storable, headers=headers_of)
def test_what_the_relay_can_send_publish_accepts(data: dict[str, Any], headers: Any) -> None:
    """So neither side knows a rule that the other does not."""
    row = {"_id": ObjectId(), "data": event(**data) if "name" not in data else event(x=data)}
    if headers:
        row["headers"] = headers
    try:
        read = decoded(bson.encode(row, codec_options=RAW.with_options(document_class=dict)))
        expected = sent(read)
    except (Poison, bson.errors.InvalidDocument, OverflowError, ValueError):
        return
    except RecursionError:
        return
    assert sent(stored(row["data"], headers=headers)).payload == expected.payload


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/a", "$id": "x"},
        {"z": 1, "$ref": "#/a", "$id": {"$ref": "b", "$id": 2}, "$db": "c", "y": [{"$ref": "d"}]},
    ],
)
def test_what_looks_like_a_reference_is_sent_as_stored(schema: Any) -> None:
    """The driver would make a DBRef of it, in an order of its own; as data itself, too."""
    import orjson

    for data in (schema, {"schema": schema}, {"list": [schema]}):
        found = sent(stored({"name": "Tried", "data": data})).payload
        assert found == orjson.dumps({"name": "Tried", "data": data})


MIB = 1 << 20


@pytest.mark.parametrize(
    "data",
    [
        {"binary": b"\0" * (4 * MIB + MIB // 2)},
        {"controls": "\x01" * (MIB + MIB // 5)},
        {"quotes": '"' * 3_000_000},
        {"longs": [Int64(-(2**63))] * 300_000},
    ],
)
def test_what_grows_in_json_is_measured_as_it_is_sent(data: dict[str, Any]) -> None:
    """Base64, escapes and digits count, by the rule that the relay has."""
    limit = 5 * MIB
    with pytest.raises(InvalidEvent, match="could never be sent: The event takes"):
        stored(event(**data), max_bytes=limit)
    assert stored(event(**data), max_bytes=10 * MIB)


@pytest.mark.parametrize(
    "value",
    [
        "x",
        "é",
        '"',
        "\x01",
        7,
        1.5,
        True,
        None,
        dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        ObjectId(),
        Kind.ONE,
    ],
)
@pytest.mark.parametrize("key", [None, "key"])
def test_the_limit_is_the_same_on_both_sides(value: Any, key: str | None) -> None:
    """Whether or not the row has to be read back to know what it takes."""
    limit, met = 5000, set()
    for count in range(4000, 5100, 7):
        data = event(values=[value] * 9, key="k" * 150, rest="x" * count)
        row = {"_id": ObjectId(), "data": data}
        read = decoded(bson.encode(row, codec_options=WRITING))
        assert isinstance(read, dict)
        try:
            sent({**read, "key": data["data"][key]} if key else read, limit)
        except Poison:
            with pytest.raises(InvalidEvent, match="could never be sent: The event takes"):
                stored(data, key=key, max_bytes=limit)
            met.add("refused")
        else:
            assert stored(data, key=key, max_bytes=limit)
            met.add("accepted")
    assert met == {"refused", "accepted"}


def test_what_shrinks_in_json_is_not_refused() -> None:
    """A list of small numbers takes several times as much in BSON."""
    row = stored(event(numbers=[1] * 5000), max_bytes=LIMIT)
    assert len(bson.encode(row)) > 2 * LIMIT
    assert sent(row)


def test_the_limit_is_the_settings_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """POSTROOM_MAX_MESSAGE_BYTES holds for programs that only write, unless they say otherwise."""
    from pymongo import MongoClient

    from postroom import Outbox

    monkeypatch.setenv("POSTROOM_MAX_MESSAGE_BYTES", "2000")
    with MongoClient[Any]("mongodb://nowhere", connect=False) as client:
        with pytest.raises(InvalidEvent, match="the broker 2000 at most"):
            Outbox(client.db)._writer.row(event(x="x" * 2000), row_id=ObjectId(), headers=None)
        larger = Outbox(client.db, max_message_bytes=5000)
        assert larger._writer.row(event(x="x" * 2000), row_id=ObjectId(), headers=None)


@pytest.mark.parametrize("given", [0, -5, 1023, 2**40, 1.5, "5000", True])
@pytest.mark.parametrize("kind", ["Outbox", "AsyncOutbox"])
def test_a_limit_that_is_none_is_refused(kind: str, given: Any) -> None:
    """Where the outbox is made, and not with each event; 0 is no way to leave it out."""
    import pymongo

    import postroom

    client: Any = (pymongo.MongoClient if kind == "Outbox" else pymongo.AsyncMongoClient)(
        connect=False
    )
    with pytest.raises(ConfigurationError, match=r"^Outbox\(\): max_message_bytes is "):
        getattr(postroom, kind)(client.db, max_message_bytes=given)


def test_no_row_is_too_large_for_mongodb() -> None:
    """A change stream's event holds the row and more, and ends at 16 MiB as well."""
    with pytest.raises(InvalidEvent, match="more than MongoDB takes"):
        stored(event(x="x" * (16 * MIB - 1000)), max_bytes=64 * MIB)


def test_deep_nesting_is_accepted_or_refused_alike() -> None:
    """MongoDB stores 180 levels, JSON's encoder ends at 254, BSON's at a thousand."""
    for depth in range(1, 300, 7):
        nested: Any = 1
        for _ in range(depth):
            nested = [nested]
        try:
            row = stored(event(nested=nested))
        except InvalidEvent as refused:
            assert depth > 177, refused  # noqa: PT017
        else:
            assert sent(row)


def test_the_key_is_made_of_what_the_relay_will_read() -> None:
    """MongoDB keeps milliseconds, and dates without a time as text."""

    class Dated(DomainEvent, name="row_writer.Dated", key="at"):
        at: dt.datetime

    at = dt.datetime(2026, 1, 2, 3, 4, 5, 678_901, dt.UTC)
    row = stored(Dated(at=at), key="other")
    del row["key"]
    assert sent(row).key == "2026-01-02T03:04:05.678000Z"
    assert stored(event(day=dt.date(2026, 1, 2)), key="day")["key"] == "2026-01-02"


def test_headers_are_text_as_in_json() -> None:
    """Null leaves one out; nothing is shown as Python shows it."""
    headers = {"a": True, "b": None, "c": {"d": [1.0]}, "e": "f", "g": 5e9, "id": "mine"}
    found = sent(stored(event(), headers=headers)).headers
    assert found == {"a": "true", "c": '{"d":[1]}', "e": "f", "g": "5000000000"}


def test_a_key_function_that_fails_is_heard_of_by_the_caller() -> None:
    """An outage as it was raised, to be tried again; everything else refuses the event."""
    outage = TimeoutError("theirs")

    def fail(*_: object) -> str:
        raise outage

    with pytest.raises(TimeoutError, match="theirs") as raised:
        stored(event(), key=fail)
    assert raised.value is outage
    with pytest.raises(InvalidEvent, match="failed with KeyError"):
        stored(event(), key=lambda _, data: data["none"])


def test_the_rows_own_key_wins_over_all_rules() -> None:
    """Whatever type it has; a null is none."""

    class Owned(DomainEvent, name="row_writer.Owned", key="patient_id"):
        patient_id: str

    row = {"_id": ObjectId(), "data": {"name": "row_writer.Owned", "data": {"patientId": "p"}}}
    assert [sent(row | {"key": key}).key for key in ("k", 5.0, True, None)] == [
        *("k", "5", "true", "p"),
    ]


IDS = [
    *(5, 5.5, Int64(6), "5", "5.5", "6", '{"$numberInt": "5"}', "true", True, None, "null"),
    *(ObjectId("65a1b2c3d4e5f60718293a4b"), "65a1b2c3d4e5f60718293a4b", "65A1B2C3D4E5F60718293A4B"),
    *(uuid.UUID(int=7), str(uuid.UUID(int=7)), Binary(b"ab"), Binary(b"ab", 5), "YWI=", b"abc"),
    *(dt.datetime(2026, 1, 1), "2026-01-01T00:00:00Z", Decimal128("7.1"), "7.1"),  # noqa: DTZ001
    *({"a": 1}, {"a": "1"}, {"a": ObjectId("65a1b2c3d4e5f60718293a4b")}, '{"a": 1}'),
    *({"a": "65a1b2c3d4e5f60718293a4b"}, Regex("a"), "a", MaxKey(), Timestamp(1, 2), "", '"'),
]


def test_no_two_rows_of_an_outbox_are_one_event() -> None:
    """The inbox would take the second for the first delivered again, and drop it."""
    found = {}
    for row_id in IDS:
        row = decoded(bson.encode({"_id": row_id, "data": event()}, codec_options=WRITING))
        found[letter.write(row, ROUTING, LIMIT).id] = row_id
    assert len(found) == len(IDS)
    assert found["5"] == "5"
    assert found["65a1b2c3d4e5f60718293a4b"] == ObjectId("65a1b2c3d4e5f60718293a4b")


def test_the_key_counts_in_bytes() -> None:
    """A hundred letters beyond ASCII are two hundred bytes and more."""
    payload = len(letter.write({"_id": 1, "data": event(), "key": "k"}, ROUTING, LIMIT).payload)
    row = {"_id": 1, "data": event(), "key": "\U0001f600" * 100}
    assert letter.write(row, ROUTING, LIMIT).size == payload + 400


@pytest.mark.parametrize("kind", [dict, list])
@pytest.mark.parametrize(
    ("levels", "is_taken"), [(176, True), (177, True), (178, False), (252, False)]
)
def test_what_is_nested_more_deeply_than_mongodb_stores_is_refused(
    kind: type, levels: int, *, is_taken: bool
) -> None:
    """Measured: a server takes 180 levels, the row's own three among them."""
    deep: Any = 1
    for _ in range(levels):
        deep = {"": deep} if kind is dict else [deep]
    for data in ({"deep": deep}, {"text": "\3\4" * 1000, "deep": [deep, 2]}):
        extra = 0 if data["deep"] is deep else 1
        if is_taken and levels + extra <= 177:
            writer().row(event(**data), row_id=ObjectId(), headers=None)
        else:
            with pytest.raises(InvalidEvent, match="nested more deeply than MongoDB stores, which"):
                writer().row(event(**data), row_id=ObjectId(), headers=None)


@pytest.mark.parametrize(
    "headers", [{"a": "x"}, {"a": "é"}, {"postroom-id": "x"}, {"a": "x", "b": ""}]
)
def test_headers_count_at_the_limit_as_the_relay_counts_them(headers: dict[str, str]) -> None:
    """What publish() takes next to the largest message is what can be sent, and no less."""
    row = {"_id": ObjectId(), "data": event(text=""), "headers": headers}
    room = LIMIT - letter.OVERHEAD_BYTES - sent(row).size
    for length in range(room - 30, room + 30):
        row["data"] = event(text="x" * length)
        try:
            expected = sent(row).size
        except Poison:
            with pytest.raises(InvalidEvent, match="could never be sent"):
                stored(row["data"], headers=headers)
        else:
            assert sent(stored(row["data"], headers=headers)).size == expected
