"""A relay's states, what may follow what, and what a status makes of the facts."""

from __future__ import annotations

import itertools

import pytest

from postroom.observation import Observer
from postroom.relay.standing import Standing
from postroom.relay.state import NEXT, State
from postroom.relay.status import Status


def standing(state: State) -> tuple[Standing, Status]:
    """Make a relay's standing in a state, and the status that hears of it."""
    status = Status(partition="default", owner="me", state=state)
    return Standing(Observer(status.hear), partition="default", state=state), status


@pytest.mark.parametrize(("state", "following"), list(itertools.product(State, State)))
def test_a_relay_goes_only_where_the_table_leads(state: State, following: State) -> None:
    """What is not in the table is refused, and changes nothing."""
    here, status = standing(state)

    if following is state or following in NEXT[state]:
        here.enter(following, "because")
        assert (status.state, status.reason) == (following, "because")
    else:
        with pytest.raises(RuntimeError, match=f"from {state.value} never to {following.value}"):
            here.enter(following)
        assert here.state is status.state is state


def test_every_state_leads_to_stopped() -> None:
    """No relay can be where a stop does not end."""
    for state in State:
        reached = {state}
        while more := {n for each in reached for n in NEXT[each]} - reached:
            reached |= more
        assert State.STOPPED in reached


def test_staying_in_a_state_keeps_its_since_and_changes_its_reason() -> None:
    """Since when a relay stands by does not move with every refused mutex."""
    here, status = standing(State.STANDBY)
    since = status.state_since

    here.enter(State.STANDBY, "another relay holds the mutex")

    assert status.state_since is since
    assert status.snapshot()["reason"] == "another relay holds the mutex"


def test_what_the_last_attempt_ended_by_is_kept_while_it_tries_again() -> None:
    """Otherwise half of those who look find a relay that stands by for no reason at all."""
    here, status = standing(State.RELAYING)
    told = []
    for state, reason in (
        (State.WAITING, "Pulsar does not answer"),
        (State.STANDBY, ""),
        (State.OPENING, ""),
        (State.WAITING, "Pulsar does not answer"),
        (State.WAITING, ""),
        (State.STANDBY, ""),
        (State.STANDBY, "another relay holds the mutex"),
        (State.STANDBY, ""),
        (State.OPENING, ""),
        (State.RELAYING, ""),
    ):
        here.enter(state, reason)
        told.append(status.reason)
    again = "It tries again; last time: Pulsar does not answer"
    away = "Pulsar does not answer"
    holds = "another relay holds the mutex"
    assert told == [away, again, again, away, away, again, holds, "", "", ""]
