"""Who may touch what in the consumer: what crosses threads is frozen or holds its own lock."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from postroom import Event, errors, handles
from postroom.inbox import facts
from postroom.inbox.handling import outcome
from postroom.inbox.handling.call import Call, Stage
from postroom.inbox.handling.handlers import Handler, Registry
from postroom.inbox.handling.job import Job
from postroom.inbox.handling.outcome import Applied, Lost, TryAgain
from postroom.inbox.scheduling import mailbox
from postroom.inbox.scheduling.admission import Admission
from postroom.inbox.scheduling.delivery import Delivery
from postroom.inbox.scheduling.held import Held
from postroom.inbox.scheduling.work import Work
from tests.waiting import wait_until

CROSSING = [
    *get_args(mailbox.Item),
    *get_args(outcome.Outcome),
    *(getattr(facts, name) for name in facts.__all__ if name != "Teller"),
    Delivery,
    Handler,
    Job,
]


@pytest.mark.parametrize("kind", CROSSING)
def test_what_crosses_to_another_thread_is_frozen(kind: Any) -> None:
    """Nobody changes a message, a job, an outcome or a fact once it is made."""
    assert issubclass(kind, tuple) or kind.__dataclass_params__.frozen, kind
    assert kind.__slots__ is not None
    assert "__dict__" not in vars(kind)


def handler(name: str = "h") -> Handler:
    """Return a handler."""
    found = Registry()
    handles("*", name=name, into=found)(lambda event: None)
    return found.handlers[name]


def test_a_job_shows_its_thread_nothing_of_the_dispatchers() -> None:
    """It carries events and a call; what is held, and its failures, stay behind."""
    event: Event[Any] = Event(id="e1", name="A", data={}, topic="t")
    delivery: Any = SimpleNamespace(
        place=("t", 1, 2, 3), event_id="e1", order=None, is_redriven=False
    )
    held = Held(delivery, event=event, handlers=[handler()])
    work = Work(handler=held.handlers[0], deliveries=[held])
    held.failed(work.handler, TryAgain(after_seconds=1, counts=True))
    job = work.job(limit_seconds=1)
    assert not [value for value in tuple(job) if isinstance(value, (Held, Delivery, Work))]
    assert (job.task_id, job.events) == ("e1", (event,))


def test_a_call_that_is_cut_off_goes_no_further() -> None:
    """Its thread is told at its next stage; what it had come to before stands."""
    call = Call(0.0)
    assert not call.is_overdue, "no thread has begun it"
    call.begin()
    call.enter(Stage.HANDLER)
    wait_until(lambda: call.is_overdue, description="its time is over")
    assert call.stage is Stage.HANDLER
    assert str(call.outcome) == str(Lost())
    call.cut_off()
    with pytest.raises(errors.HandlerTimeout):
        call.enter(Stage.COMMIT)
    done = Applied(handled=1, repeated=0)
    call.end(done)
    assert str(call.outcome) == str(done)


def test_admission_counts_right_whoever_counts() -> None:
    """Eight threads take and give back; in the end nothing is held."""
    admission = Admission(100, most_bytes=1000)

    def work() -> None:
        for _ in range(2000):
            admission.take(3)
            admission.give_back(3)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert admission.held == (0, 0)
    admission.take(1000)
    assert not admission.has_room
