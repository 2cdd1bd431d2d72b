"""Threads that run handlers: in order, no more than agreed, one that hangs replaced."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from postroom.celery.handler_threads import HandlerThreads, Turn
from tests.waiting import wait_until

if TYPE_CHECKING:
    import pytest

SOON = 5.0


class Work:
    """A turn that lasts until it is let go, and what is known of it."""

    def __init__(self, *, lasts: bool = False) -> None:
        self.began, self.let_go, self.over = (threading.Event() for _ in range(3))
        if not lasts:
            self.let_go.set()
        self.turn = Turn(run=self._run, done=self.over.set)

    def _run(self) -> None:
        self.began.set()
        self.let_go.wait(30)


def alive() -> int:
    """Count the threads there are."""
    return sum(thread.name == "handler" for thread in threading.enumerate())


def test_a_hanging_thread_is_replaced_at_once() -> None:
    """What waits behind it runs, and so does what comes later; it ends when it comes back."""
    threads = HandlerThreads(1)
    few = [Work() for _ in range(3)]
    for work in few:
        threads.submit(work.turn)
    assert all(work.over.wait(SOON) for work in few)
    hangs, waits, later = Work(lasts=True), Work(), Work()
    threads.submit(hangs.turn)
    assert hangs.began.wait(SOON)
    threads.submit(waits.turn)
    before = alive()
    assert threads.replace(hangs.turn)
    assert threads.hung == 1
    assert waits.over.wait(SOON)
    threads.submit(later.turn)
    assert later.over.wait(SOON)
    hangs.let_go.set()
    assert hangs.over.wait(SOON)
    assert threads.hung == 0
    assert not threads.replace(hangs.turn), "it is over"
    wait_until(lambda: alive() == before, description="the thread that hung has ended")
    threads.stop()


def test_no_more_than_the_limit_run_side_by_side() -> None:
    """Also after one was replaced and came back."""
    threads = HandlerThreads(1)
    hangs, first, second = Work(lasts=True), Work(lasts=True), Work()
    threads.submit(hangs.turn)
    assert hangs.began.wait(SOON)
    assert threads.replace(hangs.turn)
    hangs.let_go.set()
    assert hangs.over.wait(SOON)
    threads.submit(first.turn)
    threads.submit(second.turn)
    assert first.began.wait(SOON)
    assert not second.began.wait(0.2)
    first.let_go.set()
    assert second.over.wait(SOON)
    threads.stop()


def test_what_no_thread_has_begun_can_be_withdrawn() -> None:
    """It never runs; what runs or is over cannot."""
    threads = HandlerThreads(1)
    runs, waits = Work(lasts=True), Work()
    threads.submit(runs.turn)
    threads.submit(waits.turn)
    assert runs.began.wait(SOON)
    assert threads.withdraw(waits.turn)
    assert not threads.withdraw(waits.turn)
    assert not threads.withdraw(runs.turn)
    runs.let_go.set()
    assert runs.over.wait(SOON)
    after = Work()
    threads.submit(after.turn)
    assert after.over.wait(SOON)
    assert not waits.began.is_set()
    assert not waits.over.is_set()
    threads.stop()


def test_a_thread_outlives_what_its_turn_raises(caplog: pytest.LogCaptureFixture) -> None:
    """The failure is logged, the turn is over, and the thread takes the next one."""
    threads = HandlerThreads(1)

    def fail() -> None:
        raise SystemExit(3)

    over, after = threading.Event(), Work()
    threads.submit(Turn(run=fail, done=over.set))
    threads.submit(after.turn)
    assert over.wait(SOON)
    assert after.over.wait(SOON)
    assert "Celery failed around a handler" in caplog.text
    threads.stop()
