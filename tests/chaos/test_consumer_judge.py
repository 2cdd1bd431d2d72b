"""The consumers' judge sees what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.consumer_judge import Applied, judge_consumers
from tests.chaos.sender import Sent

GOOD = {"e1": "Counted", "e2": "Slow", "e3": "Hot"}
ONCE = dict.fromkeys(GOOD, 1)


def sent() -> Sent:
    """Return three good events and a poison one."""
    found = Sent()
    found.good, found.poison, found.numbers = dict(GOOD), {"p4"}, {"k": [1, 2]}
    return found


def times(main: dict[str, int], audit: dict[str, int], **broken: int) -> dict[str, Any]:
    """Return how often events were applied."""
    return {"times": {"main": main, "audit": audit, "broken": broken}}


def applied(**changes: Any) -> Applied:
    """Return what all of them come to, but for some changes."""
    found: dict[str, Any] = {**times(ONCE, {"e1": 1}), "charts": {"k": [1, 2]}, "hot": 1}
    return Applied(**{**found, **changes})


def test_what_is_right_is_clean() -> None:
    """Every good event once, in order, by each of its handlers; the poison one parked."""
    assert judge_consumers(sent(), applied(), ["p4"]).clean


@pytest.mark.parametrize(
    ("changes", "parked", "wrong"),
    [
        (times({"e1": 1, "e2": 1}, {"e1": 1}), ["p4"], "not_applied"),
        (times(ONCE, {}), ["p4"], "not_applied"),
        (times({**ONCE, "e1": 2}, {"e1": 1}), ["p4"], "applied_twice"),
        (times(ONCE, {"e1": 1}, p4=1), ["p4"], "poison_applied"),
        ({"hot": 2}, ["p4"], "applied_twice"),
        ({"charts": {"k": [2, 1]}}, ["p4"], "keys_out_of_order"),
        ({}, [], "poison_lost"),
        ({}, ["p4", "e1"], "good_parked"),
    ],
)
def test_each_fault_is_counted(changes: dict[str, Any], parked: list[str], wrong: str) -> None:
    """Once, under its own name."""
    verdict = judge_consumers(sent(), applied(**changes), parked)
    assert not verdict.clean
    assert getattr(verdict, wrong) == 1


def test_a_letter_that_is_there_twice_is_told() -> None:
    """It is no fault: nobody can tell after the loss of a worker."""
    verdict = judge_consumers(sent(), applied(), ["p4", "p4"])
    assert verdict.clean
    assert verdict.parked_twice == 1
