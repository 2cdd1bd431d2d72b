"""What stands still is said once, and again after a minute."""

from __future__ import annotations

import logging
from unittest import mock

import pytest

from postroom.inbox.receiving.troubles import Troubles


@pytest.fixture
def told() -> list[tuple[str, ...]]:
    """Collect what the status is told."""
    return []


@pytest.fixture
def troubles(told: list[tuple[str, ...]], caplog: pytest.LogCaptureFixture) -> Troubles:
    """Make the troubles of a subscription."""
    caplog.set_level(logging.INFO, "postroom")
    return Troubles("billing", told.append)


def test_a_trouble_is_said_once_a_minute_for_as_long_as_it_lasts(
    troubles: Troubles, told: list[tuple[str, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    """However often it is met; the status has its newest sentence all the time."""
    with mock.patch("time.monotonic") as clock:
        for second in range(90):
            clock.return_value = 1000.0 + second
            troubles.begin("north", f"north is held, {second // 60}", mended="north is read")
            troubles.say()
        clock.return_value += 1
        troubles.end("north")
        troubles.say()
    assert caplog.messages == ["north is held, 0", "north is held, 1", "north is read"]
    assert told == [("north is held, 0",), ("north is held, 1",), ()]


def test_a_trouble_that_comes_and_goes_is_said_no_more_often(
    troubles: Troubles, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is one said that was over before anybody could say it."""
    troubles.begin("south", "south is held", mended="south is read")
    troubles.end("south")
    troubles.say()
    assert caplog.messages == []
    for _ in range(5):
        troubles.begin("north", "north is held", mended="north is read")
        troubles.say()
        troubles.end("north")
    troubles.say()
    assert caplog.messages == ["north is held", "north is read"]


def test_many_troubles_at_once_are_a_few_lines(
    troubles: Troubles, told: list[tuple[str, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    """A broker that goes away takes all topics with it."""
    for number in range(100):
        troubles.begin(str(number), f"{number} is not read", mended="")
    troubles.say()
    assert len(caplog.messages) == 6
    assert "95 more" in caplog.messages[-1]
    assert len(told[-1]) == 100


def test_what_keeps_topics_from_being_read_is_told_from_other_troubles(troubles: Troubles) -> None:
    """A consumer that waits for topics says why, whatever else stands still for longer."""
    troubles.begin("threads that hang", "2 threads hang", mended="none hangs")
    troubles.begin("dead letters on d", "d takes none", mended="d has all")
    assert troubles.of_topics == ""
    troubles.begin("reading north", "north is held", mended="north is read")
    troubles.begin("looking for south", "south is away", mended="south is known")
    assert troubles.of_topics == "north is held"
    troubles.end("reading north")
    assert troubles.of_topics == "south is away"
