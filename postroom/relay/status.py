"""What a relay tells of itself: its state, and numbers for Flower, logs and the command line."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from postroom.relay import facts
from postroom.relay.state import State

if TYPE_CHECKING:
    from bson import Timestamp

    from postroom.observation import Fact

__all__ = ["Status"]


@dataclass(slots=True)
class Status:
    """The facts of one relay, added up; read from any thread, number by number.

    Each field is written by one thread: `pruned` by retention's, all others by the relay's.
    """

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

    def hear(self, fact: Fact) -> None:
        """Take note of a fact; a subscriber of the relay's Observer."""
        match fact:
            case facts.StateEntered(state=state, reason=reason, at=at):
                if state is not self.state:
                    self.state, self.since = state, at
                self.reason = reason
            case facts.TermBegan(epoch=epoch, cluster_time=reached):
                self.epoch = epoch
                self.terms += 1
                self.reached = reached.time if reached else None
            case facts.ChunkStored():
                self.events_sent += fact.events
                self.skipped += fact.skipped
                self.position = fact.position
                self._reach(fact.cluster_time)
            case facts.CheckpointWritten(cluster_time=reached):
                self._reach(reached)
            case facts.RowsQuarantined(rows=rows):
                self.quarantined += rows
            case facts.RowsPruned(rows=rows):
                self.pruned += rows

    def _reach(self, reached: Timestamp | None) -> None:
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
