"""Whose failure it is that a group's transaction is undone."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo import errors as mongo

from postroom import Event, Settings, errors, handles
from postroom.inbox.handling.blame import Blame
from postroom.inbox.handling.call import Call
from postroom.inbox.handling.handlers import Registry
from postroom.inbox.handling.job import Job
from postroom.inbox.handling.outcome import GiveUp, TryAgain, Undone


def refused() -> errors.WriteRefused:
    """Return what is raised where a write that was returned is there already."""
    error = errors.WriteRefused("refused", turn=0)
    error.__cause__ = mongo.DuplicateKeyError("there", 11000)
    return error


def blame(**options: Any) -> Blame:
    """Return what judges a group's only member, whose handler was not called by anything."""
    registry, call = Registry(), Call()
    handles("*", name="h", into=registry, **options)(lambda event: None)
    event: Event[Any] = Event(id="e", name="A", data={}, topic="t")
    job = Job(
        handler=registry.handlers["h"],
        events=(event,),
        attempt=1,
        task_id="t",
        topic="t",
        call=call,
    )
    # The inbox is asked where the application's code has run, to tell an outage from its failure.
    unasked: Any = None
    return Blame(job._replace(members=(job,)), unasked, Settings())


@pytest.mark.parametrize("options", [{"give_up_on": mongo.DuplicateKeyError}, {"max_attempts": 1}])
def test_what_is_refused_beside_others_is_given_up_by_itself_only(options: dict[str, Any]) -> None:
    """It may be for a write of theirs, which is undone, and perhaps never committed."""
    found = blame(**options)
    assert isinstance(found.beside(0, refused(), others=True)[0], Undone)
    assert isinstance(found.beside(0, refused(), others=False)[0], GiveUp)


def test_what_may_be_tried_again_is_so_beside_others_too() -> None:
    """With what it has raised itself it is given up there."""
    assert isinstance(blame().beside(0, refused(), others=True)[0], TryAgain)
    assert isinstance(blame().beside(0, errors.Reject("no"), others=True)[0], GiveUp)
