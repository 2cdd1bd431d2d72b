"""What acknowledgements prove, one after the other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pulsar

from postroom.relay.sending.acknowledgements import Acknowledgements
from postroom.topics import Topic

if TYPE_CHECKING:
    import pytest

    from postroom.relay.sending.acknowledgements import Refusal
    from postroom.store.values import Mark


def hear(*places: tuple[int, int], batches: int | None = None) -> tuple[list[Mark], list[Refusal]]:
    """Return the marks that acknowledgements of these places gave, and what failed."""
    marks: list[Mark] = []
    failures: list[Refusal] = []
    acknowledgements = Acknowledgements(
        Topic("a/b/c"), counted=True, batched=batches is not None, tell=failures.append
    )
    last = -1 if batches is None else batches - 1
    for ledger, entry in places:
        heard = acknowledgements.expect(batches or 1, marks.append)
        heard(pulsar.Result.Ok, pulsar.MessageId(-1, ledger, entry, last))
    return marks, failures


def test_a_place_before_the_last_one_says_that_the_topic_was_put_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once, with what to run; what was sent is stored all the same."""
    with caplog.at_level(logging.ERROR):
        marks, failures = hear((5, 0), (5, 1), (5, 1), (5, 2))
    assert len(marks) == 4
    assert not failures
    (said,) = caplog.records
    assert "a/b/c was put back to an earlier time" in said.getMessage()
    assert "--onto-original" in said.getMessage()


def test_places_that_go_on_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in batches nor beyond the end of a ledger."""
    for batches in (None, 3):
        marks, failures = hear((5, 0), (5, 1), (7, 0), batches=batches)
        assert (len(marks), failures) == (3, [])
    assert not caplog.records
