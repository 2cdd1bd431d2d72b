"""The observer: every subscriber hears every fact, whatever another one does."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom.observation import Fact, Observer

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True, slots=True)
class Happened(Fact):
    """A fact of this test."""

    number: int


def test_a_subscriber_that_raises_is_named_once_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The others hear every fact, in order, and so does the one that failed."""
    heard: list[Fact] = []
    tried: list[Fact] = []

    def fails(fact: Fact) -> None:
        tried.append(fact)
        raise ValueError("no")

    observer = Observer(fails)
    observer.subscribe(heard.append)
    with caplog.at_level(logging.ERROR):
        observer.tell(Happened(1))
        observer.tell(Happened(2))
    assert heard == tried == [Happened(1), Happened(2)]
    assert caplog.text.count("A subscriber failed over a Happened") == 1
