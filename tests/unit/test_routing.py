"""Routing: which topic, which key."""

from __future__ import annotations

import pytest

from postroom.errors import Poison
from postroom.routing import Routing


def test_names_win_over_patterns_and_the_rest_is_default() -> None:
    """An exact name, then the first pattern, then the default topic; all in full."""
    routing = Routing(
        default="a/b/default",
        topics={"Med*": "a/b/medicines", "Medicine": "a/b/one", "M*": "a/b/m"},
        key=None,
    )
    found = [routing.topic(name, {}) for name in ("Medicine", "MedX", "Mx", "Other")]
    assert found == [f"persistent://a/b/{n}" for n in ("one", "medicines", "m", "default")]


def test_a_function_routes_and_none_means_default() -> None:
    """The function sees name and data."""
    routing = Routing(default="a/b/c", topics=lambda name, data: data.get("to"), key=None)
    assert routing.topic("A", {"to": "x/y/z"}) == "persistent://x/y/z"
    assert routing.topic("A", {}) == "persistent://a/b/c"


def test_a_failing_function_makes_poison_of_one_event() -> None:
    """The error names the event and the kind of failure."""
    routing = Routing(
        default="a/b/c", topics=lambda name, data: data["to"], key=lambda n, d: d["k"]
    )
    with pytest.raises(Poison, match="KeyError"):
        routing.topic("A", {})
    with pytest.raises(Poison, match="KeyError"):
        routing.key("A", {})


def test_the_key_is_a_field_of_the_data() -> None:
    """Numbers become strings; a missing field is no key."""
    routing = Routing(default="a/b/c", topics={}, key="patientId")
    assert [routing.key("A", d) for d in ({"patientId": "p"}, {"patientId": 7}, {})] == [
        "p",
        "7",
        None,
    ]
