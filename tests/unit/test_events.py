"""Events: typed in Python, one form on the wire."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from bson import Binary, Decimal128, ObjectId, Regex, encode
from bson import decode as bson_decode
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from postroom import DomainEvent, InvalidEvent, events
from postroom.errors import Poison


class MedicineTaken(DomainEvent):
    """A sample."""

    medicine_id: str
    doses: int = 1


class Renamed(DomainEvent, name="medicine.renamed"):
    """A sample with a name of its own."""

    medicine_id: str


def test_the_wire_form() -> None:
    """Fields are camelCase on the wire, the class's name is the event's."""
    assert MedicineTaken(medicine_id="m").to_wire() == {
        "name": "MedicineTaken",
        "data": {"medicineId": "m", "doses": 1},
    }
    assert Renamed(medicine_id="m").to_wire()["name"] == "medicine.renamed"


def test_unknown_fields_survive() -> None:
    """What a class does not know is carried."""
    event = MedicineTaken.model_validate({"medicineId": "m", "takenAt": "noon"})
    assert event.to_wire()["data"] == {"medicineId": "m", "doses": 1, "takenAt": "noon"}


def test_a_wrong_type_is_refused_by_name() -> None:
    """The error names the field."""
    with pytest.raises(ValidationError, match="doses"):
        MedicineTaken(medicine_id="m", doses="two")


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (ObjectId("65a1b2c3d4e5f60718293a4b"), '"65a1b2c3d4e5f60718293a4b"'),
        (datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), '"2026-01-02T03:04:05.678000Z"'),
        (Decimal128("1.50"), '"1.50"'),
        (uuid.UUID(int=7), '"00000000-0000-0000-0000-000000000007"'),
        (Binary(b"\x00\xff"), '"AP8="'),
        (Binary.from_uuid(uuid.UUID(int=7)), '"00000000-0000-0000-0000-000000000007"'),
        (float("nan"), "null"),
        (float("inf"), "null"),
        (5_000_000_000, "5000000000"),
    ],
)
def test_bson_values_have_one_form_in_json(value: Any, json: str) -> None:
    """Each BSON type has its documented rule."""
    assert events.encode({"value": value}) == f'{{"value":{json}}}'.encode()


def test_a_type_without_a_form_is_poison() -> None:
    """The error names the type and not the content."""
    with pytest.raises(Poison, match="Regex") as refused:
        events.encode({"value": Regex("secret")})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        b"[]",
        b"1",
        b"{}",
        b'{"name": 1, "data": {}}',
        b'{"name": "A"}',
        b'{"name": "", "data": {}}',
        b'{"name": "A", "data": []}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    """Not JSON, no object, no name, no data: InvalidEvent, without the payload in it."""
    with pytest.raises(InvalidEvent):
        events.decode(payload)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.text(min_size=1), st.dictionaries(st.text(), json_values, max_size=6))
def test_what_is_encoded_is_decoded(name: str, data: dict[str, Any]) -> None:
    """Name and data come back as they were."""
    assert events.decode(events.encode({"name": name, "data": data})) == (name, data)


keys = st.text(st.characters(exclude_characters="\0$."), max_size=8)


@given(st.dictionaries(keys, json_values.filter(lambda v: "\0" not in repr(v)), max_size=6))
def test_a_trip_through_bson_changes_nothing(data: dict[str, Any]) -> None:
    """What MongoDB has stored is encoded as what was published."""
    try:
        stored = bson_decode(encode({"name": "A", "data": data}))
    except Exception:  # noqa: BLE001 - BSON refuses some keys; only what it takes matters
        return
    assert orjson.loads(events.encode(stored)) == {"name": "A", "data": data}


@pytest.mark.parametrize(
    "number",
    [2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**40, 1234567890123456789012345678901234567890],
)
def test_integers_are_exact_however_long(number: int) -> None:
    """Beyond 64 bits too, where orjson makes a float of them."""
    payload = b'{"name": "A", "data": {"deep": [{"n": %d}], "t": "%d"}}' % (number, number)
    assert events.decode(payload)[1] == {"deep": [{"n": number}], "t": str(number)}


@pytest.mark.parametrize("number", [b"9" * 5000, b"1e999", b"NaN", b"[" * 1500 + b"]" * 1500])
def test_what_has_no_value_here_is_refused(number: bytes) -> None:
    """Too long, too large, no number, too deep: never something near it."""
    for also in (b"", b', "n": 99999999999999999999'):
        with pytest.raises(InvalidEvent):
            events.decode(b'{"name": "A", "data": {"x": ' + number + also + b"}}")


def test_what_is_deep_and_long_is_refused_or_exact() -> None:
    """A reader that gives up at a depth says so."""
    deep = b'{"n": 99999999999999999999, "a": ' + b'{"a": ' * 1000 + b"1" + b"}" * 1001
    try:
        data = events.decode(b'{"name": "A", "data": ' + deep + b"}")[1]
    except InvalidEvent:
        return
    assert data["n"] == 99999999999999999999
