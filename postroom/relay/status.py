"""What a relay tells of itself: its state, and numbers for Flower, logs and the command line."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bson import Timestamp

__all__ = ["NEXT", "State", "Status"]


class State(enum.Enum):
    """Where a relay stands; what follows what is in NEXT, and drawn in docs/architecture.md."""

    STANDBY = "standby"  # asks for the mutex
    OPENING = "opening"  # holds it; raises the epoch, fences, reads the tails
    RELAYING = "relaying"
    WAITING = "waiting"  # a term has ended with an error; the next one begins after a wait
    STOPPING = "stopping"  # sends nothing new; drains, checkpoints, gives the mutex back
    STOPPED = "stopped"


NEXT: Mapping[State, frozenset[State]] = {
    State.STANDBY: frozenset({State.OPENING, State.WAITING, State.STOPPED}),
    State.OPENING: frozenset({State.RELAYING, State.WAITING, State.STOPPED}),
    State.RELAYING: frozenset({State.STOPPING, State.WAITING, State.STOPPED}),
    State.WAITING: frozenset({State.STANDBY, State.STOPPED}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}


@dataclass(slots=True)
class Status:
    """Written by the relay's thread alone; read from any, number by number."""

    partition: str
    owner: str
    state: State = State.STANDBY
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    reason: str = ""
    epoch: int = 0
    terms: int = 0
    position: int = 0
    events_sent: int = 0
    skipped: int = 0
    quarantined: int = 0
    pruned: int = 0
    reached: int | None = None

    def enter(self, state: State, reason: str = "") -> None:
        """Go into another state, or stay, for a reason worth showing if there is one.

        Raises:
            RuntimeError: no relay goes from here to there; a mistake in the code.

        """
        if state is not self.state:
            if state not in NEXT[self.state]:
                raise RuntimeError(f"A relay goes from {self.state.value} never to {state.value}")
            self.state, self.since = state, datetime.now(UTC)
        self.reason = reason

    def relaying(self, epoch: int, reached: Timestamp | None) -> None:
        """Note that a term has been opened."""
        self.epoch = epoch
        self.terms += 1
        self.reached = reached.time if reached else None
        self.enter(State.RELAYING)

    def stored(self, count: int, position: int, reached: Timestamp | None) -> None:
        """Count a chunk that is stored."""
        self.events_sent += count
        self.position = position
        if reached is not None:
            self.reached = reached.time

    def checkpointed(self, reached: Timestamp | None) -> None:
        """Note how far the written checkpoint reaches."""
        if reached is not None:
            self.reached = reached.time

    def snapshot(self) -> dict[str, Any]:
        """Return the numbers as JSON can hold them; `lag_seconds` is how old the checkpoint is."""
        return {
            "partition": self.partition,
            "owner": self.owner,
            "state": self.state.value,
            "since": self.since.isoformat("T", "seconds"),
            "reason": self.reason,
            "epoch": self.epoch,
            "terms": self.terms,
            "position": self.position,
            "events_sent": self.events_sent,
            "skipped": self.skipped,
            "quarantined": self.quarantined,
            "pruned": self.pruned,
            "lag_seconds": None
            if self.reached is None
            else max(0, int(time.time()) - self.reached),
        }
