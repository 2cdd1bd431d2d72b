"""One filter for quarantined rows and dead letters: what fits, and what nobody can look for."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from postroom import ConfigurationError
from postroom.operations.filters import ALL, Filter, containing, kind_of, time_of

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
LETTER = {
    "id": "e1",
    "name": "Paid",
    "handler": "shop.pay",
    "reason": "ValueError: bad path [/etc/foo]",
    "key": "k",
    "topic": "t",
    "at": NOON,
}


@pytest.mark.parametrize(
    "where",
    [
        ALL,
        Filter(ids=("e0", "e1")),
        Filter(name="Paid", handler="shop.pay", key="k", topic="t"),
        Filter(reason=re.compile("^Value.*foo")),
        Filter(reason=containing("BAD path [/etc")),
        Filter(kind="ValueError"),
        Filter(since=NOON, until=NOON + timedelta(seconds=1)),
    ],
)
def test_what_all_given_fields_fit_is_meant(where: Filter) -> None:
    """Texts as they stand, expressions searched for, the beginning of the time included."""
    assert where.fits(**LETTER)


@pytest.mark.parametrize(
    "where",
    [
        Filter(ids=("e2",)),
        Filter(name="paid"),
        Filter(name="Paid", handler="shop"),
        Filter(reason=containing("value.rror")),
        Filter(kind="Value error"),
        Filter(since=NOON + timedelta(seconds=1)),
        Filter(until=NOON),
    ],
)
def test_what_one_field_does_not_fit_is_not_meant(where: Filter) -> None:
    """One that differs is enough, in capitals too; the end of the time is outside."""
    assert not where.fits(**LETTER)
    assert not where.fits(id="e9")


@pytest.mark.parametrize("text", ["a\0b", "\udcff", "x" * 1001])
def test_what_nothing_can_have_is_refused(text: str) -> None:
    """A null character, half a character, or far too much: a sentence, and nothing is searched."""
    for where in ({"name": text}, {"ids": (text,)}, {"key": text}, {"reason": containing(text)}):
        with pytest.raises(ConfigurationError, match="to look for"):
            Filter(**where)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("ValueError: 17 is wrong", "ValueError"),
        ("shop.errors.Declined: no", "shop.errors.Declined"),
        ("The row cannot be decoded (InvalidBSON)", "The row cannot be decoded"),
        ("The event takes 6000 bytes, and the broker 5000", "The event takes"),
        ("", ""),
        ("17 times", ""),
    ],
)
def test_reasons_have_a_kind_that_they_begin_with(reason: str, kind: str) -> None:
    """So that those of one kind are counted, chosen and redriven together."""
    assert kind_of(reason) == kind
    assert Filter(kind=kind).fits(reason=reason)


def test_what_is_described_keeps_the_key_private() -> None:
    """The action log says which filter it was, but not whose events were meant."""
    where = Filter(ids=tuple(map(str, range(12))), key="patient-7", kind="ValueError", since=NOON)
    assert where.described() == {
        "ids": "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more",
        "kind": "ValueError",
        "key": "given",
        "since": "2026-05-01T12:00:00+00:00",
    }
    assert time_of("2026-05-01T12:00:00") == NOON
    assert time_of("yesterday") is None
