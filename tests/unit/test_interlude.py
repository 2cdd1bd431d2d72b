"""The interlude: what a relay knows of a pause is what was asked last."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from postroom.relay import interlude as interludes
from postroom.relay.interlude import Interlude
from postroom.store.values import OutboxPartition
from postroom.wire import CheckpointField
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pytest

PAUSED = {CheckpointField.PAUSED_BY: "an operator"}


class Database:
    """One of PyMongo's whose collections answer as they are told to."""

    def __init__(self, answer: Callable[[], Mapping[str, Any] | None]) -> None:
        self._rows = SimpleNamespace(find_one=lambda *_, **__: answer())
        self._rows.with_options = lambda **_: self._rows

    def __getitem__(self, _: str) -> Any:
        return self._rows


def test_what_was_asked_in_an_earlier_candidacy_and_is_answered_late_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The outbox partition was paused then, and is not any more: the next term goes on."""
    monkeypatch.setattr(interludes, "EVERY_SECONDS", 0.01)
    asked, answered = threading.Event(), threading.Event()
    answers = [None]

    def late() -> Mapping[str, Any] | None:
        if answers:
            return answers.pop()  # before the thread begins
        asked.set()
        answered.wait(10)
        return PAUSED

    found = Interlude(
        partition=OutboxPartition("p"),
        standing=SimpleNamespace(),  # type: ignore[arg-type]
        stopping=threading.Event(),
    )
    woken: list[None] = []
    earlier, now = Database(late), Database(lambda: None)
    with found.watched(earlier, wake=lambda: woken.append(None)):  # type: ignore[arg-type]
        assert asked.wait(10)
        (thread,) = (t for t in threading.enumerate() if t.name == "relay-pauses")
    with found.watched(now, wake=lambda: None):  # type: ignore[arg-type]
        answered.set()
        wait_until(lambda: not thread.is_alive(), description="the earlier thread has ended")
        assert not found.is_on.is_set()
    assert woken == []


def test_a_pause_is_known_within_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its end; whoever is to be woken is, for as long as it lasts."""
    monkeypatch.setattr(interludes, "EVERY_SECONDS", 0.01)
    rows: list[Mapping[str, Any] | None] = [None]
    found = Interlude(
        partition=OutboxPartition("p"),
        standing=SimpleNamespace(),  # type: ignore[arg-type]
        stopping=threading.Event(),
    )
    woken = threading.Event()
    with found.watched(Database(lambda: rows[0]), wake=woken.set):  # type: ignore[arg-type]
        assert not found.is_on.is_set()
        rows[0] = PAUSED
        assert woken.wait(10)
        assert found.is_on.is_set()
        rows[0] = None
        wait_until(lambda: not found.is_on.is_set(), description="it is relayed again")
