"""Supervision: run, back off, say what and what next, begin again."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from postroom import errors
from postroom.observation import Observer
from postroom.relay.standing import Standing
from postroom.relay.state import State
from postroom.sentences import Sentences
from postroom.supervision import Backoff, Supervisor

QUICK = Backoff(first_seconds=0.01, longest_seconds=0.04, good_seconds=0.2, jitter=0)


REASONS = ("a", "b", "c", "d", "e", "f")


def sentences() -> Sentences:
    """Return the sentences of some services."""
    return Sentences(
        mongodb_uri="mongodb://m", pulsar_url="pulsar://p", next_step="a new one begins"
    )


def test_the_waits_double_to_a_longest_and_start_anew_after_a_good_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each failure is said with the wait that follows; a long run forgives the earlier ones."""
    stopping, runs = threading.Event(), iter(range(6))
    told: list[str] = []

    def run() -> None:
        number = next(runs)
        if number == 4:
            time.sleep(0.25)
        if number == 5:
            stopping.set()
        raise errors.TermEnded(f"over {REASONS[number]}")

    caplog.set_level(logging.WARNING)
    Supervisor(
        run, stopping=stopping, sentence=sentences().of, waiting=told.append, backoff=QUICK
    ).supervise()
    assert told == [f"over {reason}" for reason in REASONS[:5]]
    waits = [record.args[1] for record in caplog.records if isinstance(record.args, tuple)]
    assert waits == [0.01, 0.02, 0.04, 0.04, 0.01]


def test_the_same_trouble_is_said_once_until_a_good_run(caplog: pytest.LogCaptureFixture) -> None:
    """However often it is tried again; `waiting` is told each time, and another trouble is said."""
    stopping, told = threading.Event(), list[str]()
    runs = iter(range(9))

    def run() -> None:
        number = next(runs)
        if number == 6:
            time.sleep(0.25)
        if number == 8:
            stopping.set()
        raise errors.TermEnded("another" if number == 3 else f"away for {number}.{number} s")

    caplog.set_level(logging.WARNING)
    Supervisor(
        run, stopping=stopping, sentence=sentences().of, waiting=told.append, backoff=QUICK
    ).supervise()
    assert len(told) == 8
    said = [str(record.args[0]) for record in caplog.records if isinstance(record.args, tuple)]
    assert said == ["away for 0.0 s", "another", "away for 6.6 s"]


def test_the_log_names_whom_it_is_about(caplog: pytest.LogCaptureFixture) -> None:
    """One worker has several of them, whose sentences are alike; its own status needs no name."""
    stopping, told = threading.Event(), list[str]()

    def run() -> None:
        threading.Timer(0.05, stopping.set).start()
        raise errors.TermEnded("away")

    Supervisor(
        run,
        stopping=stopping,
        sentence=sentences().of,
        waiting=told.append,
        about="Outbox partition 'default-3'",
    ).supervise()
    assert told == ["away"]
    assert [r.getMessage()[:34] for r in caplog.records] == ["Outbox partition 'default-3': away"]


def test_what_no_wait_can_mend_is_passed_on() -> None:
    """A wrong setting is not tried again."""

    def run() -> None:
        raise errors.ConfigurationError("wrong")

    supervisor = Supervisor(
        run, stopping=threading.Event(), sentence=sentences().of, waiting=lambda _: None
    )
    with pytest.raises(errors.ConfigurationError, match="wrong"):
        supervisor.supervise()


def test_a_wait_ends_with_stopping(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for a backoff that is no longer needed; the unexpected has its traceback."""
    stopping = threading.Event()

    def run() -> None:
        threading.Timer(0.05, stopping.set).start()
        raise ValueError("a mistake")

    slow = Backoff(first_seconds=60, longest_seconds=60)
    began = time.monotonic()
    Supervisor(
        run, stopping=stopping, sentence=sentences().of, waiting=lambda _: None, backoff=slow
    ).supervise()
    assert time.monotonic() - began < 10
    assert "ValueError: a mistake; a new one begins" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("state", [each for each in State if each is not State.STOPPED])
def test_an_error_in_any_state_is_waited_out(state: State) -> None:
    """Also where a pause drains: the next term begins, and the relay's thread lives on."""
    stopping, observer = threading.Event(), Observer()
    standing = Standing(observer, partition="p", state=state)
    states: list[object] = []
    observer.subscribe(lambda fact: states.append(getattr(fact, "state", None)))

    def run() -> None:
        if states:
            standing.enter(State.STANDBY)
            stopping.set()
            return
        raise errors.TermEnded("the connection was lost")

    def waiting(reason: str) -> None:
        standing.enter(State.WAITING, reason)

    Supervisor(
        run, stopping=stopping, sentence=sentences().of, waiting=waiting, backoff=QUICK
    ).supervise()
    assert states == [State.WAITING, State.STANDBY]
