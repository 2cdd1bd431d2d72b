"""Retry: what becomes of an event whose handler failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, OperationFailure

from postroom import InvalidEvent, Reject, Retry, Settings, handles
from postroom.errors import OtherPartitioning, PartitioningChanged
from postroom.inbox.handling.handlers import Handler, Registry
from postroom.inbox.handling.outcome import GiveUp, TryAgain
from postroom.inbox.handling.retry import judge, wait_seconds
from postroom.private_text import described


def handler(**options: Any) -> Handler:
    """Return a handler with options."""
    found = Registry()
    handles("*", name="h", into=found, **options)(lambda event: None)
    return found.handlers["h"]


def verdict(error: Exception, attempt: int = 1, **options: Any) -> GiveUp | TryAgain:
    """Judge an error with the settings' defaults."""
    return judge(error, handler=handler(**options), attempt=attempt, settings=Settings())


def test_an_outage_burns_no_attempts() -> None:
    """MongoDB being away is waited for, however often."""
    found = verdict(AutoReconnect(), attempt=1000)
    assert isinstance(found, TryAgain)
    assert not found.counts


@pytest.mark.parametrize("code", [13, 18, 20, 50, 8000, 10107, 14031])
def test_what_mongodb_refuses_to_all_burns_no_attempts(code: int) -> None:
    """Wrong credentials, no replica set, no primary: nothing is wrong with the event."""
    found = verdict(OperationFailure("x", code), attempt=1000)
    assert found.counts is False if isinstance(found, TryAgain) else pytest.fail("given up")


def test_a_handler_that_publishes_by_another_number_burns_no_attempts() -> None:
    """Its worker is refused until it is started with the right one; the event can wait for that."""
    found = verdict(OtherPartitioning("has 4 here"), attempt=1000)
    assert isinstance(found, TryAgain)
    assert not found.counts
    found = verdict(PartitioningChanged(), attempt=1000)
    assert isinstance(found, TryAgain)
    assert not found.counts


@pytest.mark.parametrize("code", [112, 225, 251, 388])
def test_a_conflict_that_lasts_is_the_handlers_own(code: int) -> None:
    """For a while it may be another transaction's; afterwards each failure is an attempt."""
    now = datetime.now(UTC)
    for since, counts in ((None, False), (now, False), (now - timedelta(seconds=100), True)):
        found = judge(
            OperationFailure("x", code),
            handler=handler(),
            attempt=1,
            settings=Settings(),
            since=since,
        )
        assert isinstance(found, TryAgain)
        assert found.counts is counts


def test_a_drivers_text_is_not_repeated() -> None:
    """It may hold whole documents; the kind and the code are enough."""
    assert described(OperationFailure("of Jane Doe", 121)) == "OperationFailure, code 121"


@pytest.mark.parametrize("error", [Reject("no"), InvalidEvent("no")])
def test_what_can_never_succeed_is_given_up_at_once(error: Exception) -> None:
    """A rejection and invalid data are final."""
    assert isinstance(verdict(error), GiveUp)


def test_an_error_is_tried_again_up_to_the_limit() -> None:
    """The fifth attempt is the last one unless said otherwise."""
    found = [verdict(ValueError("x"), attempt) for attempt in range(1, 6)]
    assert [type(v) for v in found] == [TryAgain] * 4 + [GiveUp]
    assert isinstance(verdict(ValueError(), 2, max_attempts=2), GiveUp)


def test_a_handler_names_errors_to_give_up_on() -> None:
    """`give_up_on` is final at the first attempt."""
    assert isinstance(verdict(KeyError("k"), give_up_on=[LookupError]), GiveUp)
    assert isinstance(verdict(ValueError(), give_up_on=[LookupError]), TryAgain)


def test_a_handler_says_how_long_to_wait() -> None:
    """Retry(after=…) replaces the backoff and counts."""
    found = verdict(Retry(after=timedelta(seconds=7)))
    assert found == TryAgain(after_seconds=7.0, counts=True)
    assert verdict(Retry(after=7)) == found


def test_waits_double_up_to_the_longest() -> None:
    """1, 2, 4, … seconds, each up to a fifth more or less, never more than the longest."""
    for attempt in range(1, 100):
        expected = min(60.0, 2.0 ** (attempt - 1))
        wait = wait_seconds(attempt, first=1.0, longest=60.0)
        assert expected * 0.8 <= wait <= expected * 1.2
