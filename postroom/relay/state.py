"""A relay's states, and the one table of what may follow what."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NEXT", "State", "require_step"]


class State(enum.Enum):
    """Where a relay stands; what follows what is in NEXT, and drawn in docs/architecture.md."""

    STANDBY = "standby"  # was let in by the services, and waits for its turn to have the mutex
    OPENING = "opening"  # holds it; raises the epoch, fences, reads the tails
    RELAYING = "relaying"
    PAUSED = "paused"  # holds the mutex and nothing else, until an operator resumes the partition
    WAITING = "waiting"  # the services have not let it in yet, or not again after an error
    STOPPING = "stopping"  # sends nothing new; drains, checkpoints, gives the mutex back
    STOPPED = "stopped"


NEXT: Mapping[State, frozenset[State]] = {
    State.STANDBY: frozenset({State.OPENING, State.WAITING, State.STOPPED}),
    # To standby from here on where the mutex is given to another relay that is to have it.
    State.OPENING: frozenset(
        {State.RELAYING, State.PAUSED, State.WAITING, State.STANDBY, State.STOPPED}
    ),
    State.PAUSED: frozenset({State.OPENING, State.WAITING, State.STANDBY, State.STOPPED}),
    State.RELAYING: frozenset({State.STOPPING, State.WAITING, State.STOPPED}),
    # Straight to opening where the mutex is free: it never stood by for anybody.
    State.WAITING: frozenset({State.STANDBY, State.OPENING, State.STOPPED}),
    # To waiting where a pause drains: behind a stop nothing is waited for.
    State.STOPPING: frozenset(
        {State.STOPPED, State.PAUSED, State.OPENING, State.WAITING, State.STANDBY}
    ),
    State.STOPPED: frozenset(),
}


def require_step(here: State, there: State) -> None:
    """Make sure that a relay may go from one state to another, or stay.

    Raises:
        RuntimeError: no relay goes from here to there; a mistake in the code.

    """
    if there is not here and there not in NEXT[here]:
        raise RuntimeError(f"A relay goes from {here.value} never to {there.value}")
