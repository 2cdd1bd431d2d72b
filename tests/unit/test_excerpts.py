"""Listings of commands: the line below one says how much of all that matches it shows."""

from __future__ import annotations

import pytest

from postroom.celery.commands.printing import print_excerpt
from postroom.operations.filters import Excerpt


@pytest.mark.parametrize(
    ("shown", "matching", "at_least", "line"),
    [
        (0, 0, False, "0 rows"),
        (5, 5, False, "5 rows"),
        (5, 12, False, "5 of 12 rows"),
        (0, 12, False, "0 of 12 rows"),
        (5, 5, True, "5 of at least 5 rows"),
        (5, 12, True, "5 of at least 12 rows"),
    ],
)
def test_a_listing_says_how_much_of_it_is_shown(
    capsys: pytest.CaptureFixture[str], shown: int, matching: int, *, at_least: bool, line: str
) -> None:
    """All, some of all, or some of what was counted before the counting was cut short."""
    found = Excerpt(items=range(shown), skipped=0, matching=matching, at_least=at_least)
    print_excerpt(("number",), found, lambda number: (number,), noun="rows")
    assert capsys.readouterr().out.splitlines()[-1].strip() == line
