"""What lasts is said once, and then once in a while; waits double."""

from __future__ import annotations

from postroom.doubling import Doubling, Respite
from postroom.reminders import Announcement, Reminders


def test_what_lasts_is_said_once_for_as_long_as_it_counts() -> None:
    """Each thing by itself, and again at once where it is forgotten."""
    reminders = Reminders(60)
    assert [reminders.is_due(about) for about in "aabab"] == [True, False, True, False, False]
    reminders.forget("a")
    assert [reminders.is_due(about) for about in "ab"] == [True, False]
    reminders.clear()
    assert [reminders.is_due(about) for about in "ab"] == [True, True]


def test_what_was_said_long_ago_is_said_again() -> None:
    """With no time in between everything is due each time."""
    reminders = Reminders(0)
    assert [reminders.is_due("a") for _ in range(3)] == [True] * 3


def test_what_changes_is_said_at_once_and_what_stays_once_in_a_while() -> None:
    """Also what comes back; what it was made with counts as said."""
    announced = Announcement(every_seconds=60)
    assert [announced.is_due(what) for what in "aaba"] == [True, False, True, True]
    assert not Announcement((), every_seconds=60).is_due(())
    announced = Announcement(every_seconds=0)
    assert [announced.is_due("a") for _ in range(3)] == [True] * 3


def test_waits_double_up_to_the_longest_and_begin_again() -> None:
    """The first one is as long as it was asked for."""
    waits = Doubling(first=1, longest=5)
    assert [waits.take() for _ in range(5)] == [1, 2, 4, 5, 5]
    waits.reset()
    assert [waits.take() for _ in range(2)] == [1, 2]


def test_what_has_failed_is_left_alone_until_that_is_over_or_it_is_well() -> None:
    """Each time for longer; an end makes the next one as long as the first."""
    respite = Respite(first=0.0, longest=60.0)
    assert not respite.is_on, "nothing has failed"
    respite.begin()
    assert not respite.is_on, "its first wait is over at once"
    respite = Respite(first=30.0, longest=60.0)
    respite.begin()
    assert respite.is_on
    respite.end()
    assert not respite.is_on
