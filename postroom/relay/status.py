"""What a relay tells of itself: its state, and numbers for Flower, logs and the command line."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from postroom.relay import facts
from postroom.relay.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bson import Timestamp

    from postroom.observation import Fact

__all__ = ["Counts", "Status"]

# The stream answers at least once a second; a reply without rows says that nothing waits.
CAUGHT_UP_SECONDS = 3.0
IN_OFFICE = frozenset({State.RELAYING, State.STOPPING})
TRYING = frozenset({State.STANDBY, State.OPENING})
LAST_TIME = "It tries again; last time: "


@dataclass(slots=True)
class Counts:
    """What one relay has done since it was started, in all its terms.

    `pruned` is written by the threads of retention, `fired` by those of movers, all others by the
    relay's thread. There is one of each a term, and an old one may still end its last delete or
    move: should two add at the very same time, what one adds may be missing.
    """

    terms: int = 0
    events_sent: int = 0
    skipped: int = 0
    quarantined_by_this_relay: int = 0
    pruned: int = 0
    fired: int = 0


@dataclass(slots=True)
class Lag:
    """How far behind a relay is, by the cluster time up to which it has relayed all, in seconds.

    The relay's thread alone writes it; any thread may ask.
    """

    relayed_until: int | None = None
    caught_up_at: float = 0.0

    def relayed(self, until: Timestamp | None) -> None:
        """Note up to when all is relayed, where that can be told."""
        if until is not None:
            self.relayed_until = until.time

    def caught_up(self, seconds: float) -> None:
        """Note that the stream was read to its end so many seconds ago: nothing waited then."""
        self.caught_up_at = time.time() - seconds

    def seconds(self) -> int | None:
        """Return how old the oldest committed event that is not relayed may be; 0 if none waits.

        None where that cannot be told, as in a first scan.
        """
        if self.relayed_until is None:
            return None
        now = time.time()
        if now - self.caught_up_at <= CAUGHT_UP_SECONDS:
            return 0
        return max(0, int(now - max(self.caught_up_at, self.relayed_until)))


@dataclass(slots=True)
class Status:
    """The facts of one relay; read from any thread, number by number.

    What has a name of PartitionView's means the same here, as this relay knows it. hear() is called
    in the relay's thread, and for RowsPruned in retention's, for EventsFired in the mover's, which
    touch `pruned` and `fired` alone: there is no lock.
    """

    partition: str
    owner: str
    state: State = State.WAITING
    state_since: datetime = field(default_factory=lambda: datetime.now(UTC))
    reason: str = ""
    epoch: int = 0
    position: int = 0
    counts: Counts = field(default_factory=Counts)
    lag: Lag = field(default_factory=Lag)
    topics_shut: Mapping[str, str] = field(default_factory=dict)

    def hear(self, fact: Fact) -> None:
        """Take note of a fact; a subscriber of the relay's Observer."""
        match fact:
            case facts.StateEntered(state=state, reason=reason, at=at):
                self.reason = reason or self._kept(state)
                if state is not self.state:
                    self.state, self.state_since = state, at
            case facts.TermBegan():
                self.epoch, self.position = fact.epoch, fact.position
                self.counts.terms += 1
                self.lag = Lag(fact.cluster_time.time if fact.cluster_time else None)
            case facts.ChunkStored():
                self._stored(fact)
            case facts.CheckpointWritten(cluster_time=until):
                self.lag.relayed(until)
            case facts.RowsQuarantined(rows=rows):
                self.counts.quarantined_by_this_relay += rows
            case facts.RowsPruned(rows=rows):
                self.counts.pruned += rows
            case facts.EventsFired(events=events):
                self.counts.fired += events
            case facts.TopicsShut(reasons=reasons):
                self.topics_shut = reasons

    def _kept(self, state: State) -> str:
        """Return what the last attempt ended by, while the next one has not come to anything."""
        if state not in TRYING or self.reason.startswith(LAST_TIME):
            return self.reason if state in TRYING else ""
        return LAST_TIME + self.reason if self.state is State.WAITING and self.reason else ""

    def _stored(self, fact: facts.ChunkStored) -> None:
        is_empty = not (fact.events or fact.skipped) and fact.position == self.position
        self.counts.events_sent += fact.events
        self.counts.skipped += fact.skipped
        self.position = fact.position
        self.lag.relayed(fact.cluster_time)
        if is_empty and fact.cluster_time is not None:
            # The stream was read to its end: all that was committed until then is relayed.
            self.lag.caught_up(fact.seconds)

    def lag_seconds(self) -> int | None:
        """Return how old the oldest committed event that is not relayed may be; 0 if none waits.

        None where this relay cannot tell: out of office, where another one may relay (`outbox
        status` tells then), and in a first scan.
        """
        return self.lag.seconds() if self.state in IN_OFFICE else None

    def snapshot(self) -> dict[str, Any]:
        """Return the numbers as JSON can hold them."""
        until = self.lag.relayed_until
        return {
            "partition": self.partition,
            "owner": self.owner,
            "state": self.state.value,
            "state_since": self.state_since.isoformat("T", "seconds"),
            "reason": self.reason,
            "epoch": self.epoch,
            "position": self.position,
            **dataclasses.asdict(self.counts),
            "relayed_until": None
            if until is None
            else datetime.fromtimestamp(until, UTC).isoformat("T", "seconds"),
            "topics_shut": dict(self.topics_shut),
            "lag_seconds": self.lag_seconds(),
        }
