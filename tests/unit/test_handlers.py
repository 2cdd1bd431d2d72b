"""Handlers: what may be one, and which events it gets."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from postroom import ConfigurationError, DomainEvent, Event, InvalidEvent, handles
from postroom.inbox.handling.handlers import Registry


class Taken(DomainEvent):
    """A sample."""

    doses: int


def event(name: str, data: dict[str, Any]) -> Event[dict[str, Any]]:
    """Return an event as it comes from the topic."""
    return Event(id="1", name=name, data=data, topic="t")


def test_classes_names_and_patterns() -> None:
    """A handler gets the events of its class, of a name, or of a pattern."""
    found = Registry()
    for name, match in (("class", Taken), ("name", "Lost"), ("pattern", "T*")):
        handles(match, name=name, into=found)(lambda event: None)
    names = {n: [h.name for h in found.for_event(n, "s")] for n in ("Taken", "Lost", "Tried", "No")}
    assert names == {
        "Taken": ["class", "pattern"],
        "Lost": ["name"],
        "Tried": ["pattern"],
        "No": [],
    }


def test_a_handler_of_one_subscription_gets_no_other() -> None:
    """`subscription` restricts a handler."""
    found = Registry()
    handles("*", name="h", subscription="mine", into=found)(lambda event: None)
    assert [len(found.for_event("A", s)) for s in ("mine", "other")] == [1, 0]


def test_data_are_validated_for_a_class_and_raw_for_a_name() -> None:
    """An event class gets its instance; a name the plain object."""
    found = Registry()
    handles(Taken, "Lost", name="h", into=found)(lambda event: None)
    handler = found.handlers["h"]
    assert handler.prepared(event("Taken", {"doses": 2})).data == Taken(doses=2)
    assert handler.prepared(event("Lost", {"doses": "two"})).data == {"doses": "two"}


def test_wrong_data_are_refused_without_being_shown() -> None:
    """The error names the field and not the value."""
    found = Registry()
    handles(Taken, name="h", into=found)(lambda event: None)
    with pytest.raises(InvalidEvent, match="doses") as refused:
        found.handlers["h"].prepared(event("Taken", {"doses": "secret"}))
    assert "secret" not in str(refused.value)


def first_of_two(event: Any) -> None:
    """Do nothing."""


def refused(*args: Any, function: Any = lambda event: None, **options: Any) -> str:
    """Return the sentence with which a registration is refused."""
    with pytest.raises(ConfigurationError) as found:
        handles(*args, into=Registry(), **options)(function)
    return str(found.value)


def test_what_cannot_be_a_handler_is_refused_at_registration() -> None:
    """Celery's retries, tasks, coroutines and unknown parameters are refused with a sentence."""
    app = Celery("unit", set_as_current=False)

    async def asynchronous(event: Any) -> None:
        """Do nothing."""

    assert "move the event from Pulsar to Redis" in refused(Taken, autoretry_for=(ValueError,))
    task = app.task(name="a.task")(first_of_two)
    assert "a Celery task already" in refused(Taken, function=task)
    assert "async" in refused(Taken, function=asynchronous)
    assert "no `self`" in refused(Taken, function=lambda self, event: None)
    assert "asks for other" in refused(Taken, function=lambda event, other: None)
    assert "must take the event" in refused(Taken, function=lambda: None)
    assert "event class" in refused()
    assert "not 7" in refused(7)
    assert "batch" in refused(Taken, batch=0)


def test_two_functions_of_one_name_are_refused() -> None:
    """The name is the identity in the inbox, so it must be one handler's alone."""
    found = Registry()

    def first(event: Any) -> None:
        """Do nothing."""

    def second(event: Any) -> None:
        """Do nothing."""

    handles(Taken, name="same", into=found)(first)
    handles(Taken, name="same", into=found)(first)
    with pytest.raises(ConfigurationError, match="same"):
        handles(Taken, name="same", into=found)(second)
