"""Routing: which topic, which key, on both sides alike."""

from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Regex

from postroom import ConfigurationError, DomainEvent, errors
from postroom.errors import Poison
from postroom.routing import Routing
from postroom.topics import namespace_of


def routing(**options: Any) -> Routing:
    """Return a routing to one topic."""
    return Routing(**{"default": "a/b/c", "topics": {}, "key": None, **options})


def test_names_win_over_patterns_and_the_rest_is_default() -> None:
    """An exact name, then the first pattern, then the default topic; all in full."""
    found = routing(
        default="a/b/default",
        topics={"Med*": "a/b/medicines", "Medicine": "a/b/one", "M*": "a/b/m"},
    )
    topics = [found.topic(name, {}) for name in ("Medicine", "MedX", "Mx", "Other")]
    assert topics == [f"persistent://a/b/{n}" for n in ("one", "medicines", "m", "default")]


def test_a_function_routes_and_none_means_default() -> None:
    """The function sees name and data."""
    found = routing(topics=lambda _, data: data.get("to"))
    assert found.topic("A", {"to": "x/y/z"}) == "persistent://x/y/z"
    assert found.topic("A", {}) == "persistent://a/b/c"


class Place(str, enum.Enum):  # noqa: UP042 - its str() is not its value
    """Topics and keys as an application may have them."""

    SHORT = "x/y/z"
    FULL = "persistent://x/y/z"


class Text(str):
    """A string of somebody else's."""

    __slots__ = ()


@pytest.mark.parametrize("answer", [Place.SHORT, Place.FULL, Text("x/y/z")])
def test_members_of_enumerations_are_the_texts_that_they_hold(answer: str) -> None:
    """As topic, answered or configured, and as key."""
    called = routing(topics=lambda *_: answer, key=lambda *_: answer)
    assert called.topic("A", {}) == "persistent://x/y/z"
    assert type(called.key("A", {})) is str
    assert called.key("A", {}) == str.__str__(answer)
    assert routing(topics={"A": answer}).topic("A", {}) == "persistent://x/y/z"


def test_one_topic_is_one_object() -> None:
    """The relay compares topics by identity, event for event."""
    found = routing(topics={"A": "x/y/z", "B*": "persistent://x/y/z"})
    assert found.topic("A", {}) is found.topic("Bb", {}) is found.topics[1]
    called = routing(topics=lambda _, data: "/".join(data["to"]))
    assert called.topic("A", {"to": "xyz"}) is called.topic("B", {"to": "xyz"})


@pytest.mark.parametrize("topic", ["events", "a/b", "a/b/", "a b/c/d", "", 5, "a/b/\ud800"])
def test_what_is_no_topic_is_refused_at_the_start(topic: Any) -> None:
    """By name; it would end every term."""
    with pytest.raises(ConfigurationError, match="is no topic"):
        routing(topics={"A": topic})


def test_a_failing_function_makes_poison_of_one_event() -> None:
    """The error names the event and the kind of failure."""
    found = routing(topics=lambda _, data: data["to"], key=lambda _, data: data["k"])
    with pytest.raises(Poison, match="routing function failed with KeyError for 'A'"):
        found.topic("A", {})
    with pytest.raises(Poison, match="key function failed with KeyError for 'A'"):
        found.key("A", {})


class Outage(Exception):
    """What a client library makes of the system's error."""


def _out(*_: object) -> str:
    try:
        raise ConnectionRefusedError
    except OSError as error:
        raise Outage from error


def _raises(error: Exception) -> Any:
    def function(*_: object) -> str:
        raise error

    return function


@pytest.mark.parametrize(
    "function",
    [_raises(TimeoutError()), _raises(ConnectionResetError()), _raises(OSError()), _out],
)
def test_a_function_that_fails_for_a_while_makes_no_poison(function: Any) -> None:
    """It is asked again in the next term; nothing is set aside for an outage."""
    for ask in (routing(topics=function).topic, routing(key=function).key):
        with pytest.raises(errors.RoutingFailed, match=r"function failed with .* is asked again"):
            ask("A", {})


NO_TOPICS = [
    "non-persistent://a/b/c",
    "http://a/b/c",
    "a/b/c/d",
    "a/b/c/d/e",
    "persistent://a/b/c/d",
    "a b/c/d",
    "a/ü/c",
    "a/b/c\x7f",
    f"a/b/{'c' * 500}",
    "persistent://persistent://a/b/c",
]


@pytest.mark.parametrize("name", NO_TOPICS)
def test_a_name_of_what_keeps_no_events_is_refused_or_poison(name: str) -> None:
    """Where the routing is a table nothing starts; of a function's answer it is one row."""
    with pytest.raises(ConfigurationError, match="is no topic that keeps events"):
        routing(topics={"A*": name})
    with pytest.raises(Poison, match="is no topic that keeps events"):
        routing(topics=lambda *_: name).topic("A", {})


@pytest.mark.parametrize("answer", ["a/b/\ud800secret", "secret", 7, b"a/b/secret", ["secret"]])
def test_an_answer_that_is_no_topic_is_poison_and_not_quoted(answer: Any) -> None:
    """One event is set aside, with a sentence."""
    with pytest.raises(Poison) as refused:
        routing(topics=lambda *_: answer).topic("A", {})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("answer", ["secret\udfff", object(), Regex("secret"), {1: "secret"}])
def test_an_answer_that_can_be_no_key_is_poison_and_not_quoted(answer: Any) -> None:
    """One event is set aside, with a sentence."""
    with pytest.raises(Poison, match="The key of 'A' cannot be one") as refused:
        routing(key=lambda *_: answer).key("A", {})
    assert "secret" not in str(refused.value)


NOON = dt.datetime(2026, 1, 2, 12, 0, 0, 5000)  # noqa: DTZ001 - as BSON is decoded


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("p", "p"),
        ("", ""),
        ("ä\U0001f600", "ä\U0001f600"),
        (7, "7"),
        (Int64(5_000_000_000), "5000000000"),
        (5_000_000_000.0, "5000000000"),
        (2.0**62, str(2**62)),
        (-0.0, "0"),
        (1.5, "1.5"),
        (1.5e300, "1.5e+300"),
        (True, "true"),
        (False, "false"),
        (None, None),
        (math.nan, None),
        (-math.inf, None),
        (NOON, "2026-01-02T12:00:00.005000Z"),
        (ObjectId("65a1b2c3d4e5f60718293a4b"), "65a1b2c3d4e5f60718293a4b"),
        (Decimal128("1.50"), "1.50"),
        (Decimal128("5"), "5"),
        (Decimal128("5.0"), "5"),
        (Decimal128("5E+9"), "5000000000"),
        (Decimal128("-0.00"), "0"),
        (Decimal128("1E+20"), "100000000000000000000"),
        (Decimal128("100000000000000000000.0"), "100000000000000000000"),
        (Decimal128("9" * 34), "9" * 34),
        (Decimal128("1E+6111"), "1E+6111"),
        (Decimal128("NaN"), None),
        (Decimal128("-Infinity"), None),
        ([Decimal128("5.0"), {"a": Decimal128("7E+1")}], '[5,{"a":70}]'),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Binary(b"\x00\xff"), "AP8="),
        ({"b": 1.0, "a": [True, None, 2.5]}, '{"b":1,"a":[true,null,2.5]}'),
        ([], "[]"),
    ],
)
def test_a_key_is_what_the_value_is_in_json(value: Any, key: str | None) -> None:
    """By field or by function; a number that is whole is one key, however it is stored."""
    assert routing(key="id").key("A", {"id": value}) == key
    assert routing(key=lambda _, data: data["id"]).key("A", {"id": value}) == key


def test_a_key_that_is_nested_too_deeply_is_poison() -> None:
    """By field or by function, of any depth."""
    for depth in (300, 5_000, 100_000):
        deep: list[Any] = []
        for _ in range(depth):
            deep = [deep]
        with pytest.raises(Poison, match="The key of 'A' cannot be one"):
            routing(key="id").key("A", {"id": deep})
        while deep:
            deep = deep.pop()


def test_a_class_names_its_key_for_all_events_of_its_name() -> None:
    """By its field in Python; it wins over the installation's, also where the field is null."""

    class Discharged(DomainEvent, name="routing.Discharged", key="patient_id"):
        patient_id: str | None = None

    class Readmitted(Discharged, name="routing.Readmitted"):
        pass

    found = routing(key="other")
    for name in (Discharged.event_name, Readmitted.event_name):
        assert found.key(name, {"patientId": "p", "other": "o"}) == "p"
        assert found.key(name, {"patientId": None, "other": "o"}) is None
        assert found.key(name, {"other": "o"}) is None
    assert found.key("routing.Else", {"patientId": "p", "other": "o"}) == "o"


def test_a_class_may_be_keyed_by_an_alias_of_its_own() -> None:
    """The key is read under the name that the field has on the wire."""
    from pydantic import Field, computed_field

    class Aliased(DomainEvent, name="routing.Aliased", key="patient"):
        patient: str = Field(serialization_alias="PAT-ID")

    class Computed(DomainEvent, name="routing.Computed", key="both"):
        first: str
        second: str

        @computed_field
        def both(self) -> str:
            return f"{self.first}-{self.second}"

    for event in (Aliased(patient="p"), Computed(first="p", second="q")):
        wire = event.to_wire()
        assert routing().key(wire["name"], wire["data"]) in {"p", "p-q"}


def test_a_class_keyed_by_no_field_is_refused() -> None:
    """At its definition: a key that is never there would cost the order without a word."""
    with pytest.raises(ConfigurationError, match="'patientId', which is no field"):

        class Mistyped(DomainEvent, name="routing.Mistyped", key="patientId"):
            patient_id: str


def test_two_classes_of_one_name_have_one_key() -> None:
    """Which of them would count is nothing to guess; a class loaded again is the same one."""

    def one(key: str) -> type[DomainEvent]:
        class Twice(DomainEvent, name="routing.Twice", key=key):
            patient_id: str
            ward_id: str

        return Twice

    one("patient_id")
    one("ward_id")
    with pytest.raises(ConfigurationError, match=r"'routing\.Twice' are keyed by 'ward_id'"):

        class Other(DomainEvent, name="routing.Twice", key="patient_id"):
            patient_id: str

    class Keyless(DomainEvent, name="routing.Twice"):
        pass

    assert routing().key("routing.Twice", {"wardId": "w"}) == "w"


@pytest.mark.parametrize(
    "topic", ["shop/prod/orders", "persistent://shop/prod/orders-partition-3", "a://shop/prod/x"]
)
def test_a_topic_is_in_a_namespace(topic: str) -> None:
    """However much of its name is written."""
    assert namespace_of(topic) == "shop/prod"
