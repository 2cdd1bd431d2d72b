"""What a relay tells of itself: frozen facts for an Observer, once a chunk and never once a row.

All are told in the relay's own thread, but for RowsPruned and EventsFired, which those of retention
and of the mover tell. Every fact names its outbox partition, so that one subscriber can follow
several relays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom.observation import Fact

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from bson import Timestamp

    from postroom.relay.state import State

__all__ = [
    "CheckpointWritten",
    "ChunkStored",
    "EventsFired",
    "LoopTurned",
    "RelayFact",
    "RowsPruned",
    "RowsQuarantined",
    "RowsReturned",
    "StateEntered",
    "TermBegan",
    "TermFailed",
    "TopicsShut",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayFact(Fact):
    """Something that happened to the relay of one outbox partition."""

    partition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateEntered(RelayFact):
    """The relay went into a state, or stays there for another reason."""

    state: State
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TermBegan(RelayFact):
    """A term is open: fenced, its tails read; it goes on behind `position`.

    `cluster_time` is how far the checkpoint reached then, None where it does not tell.
    """

    epoch: int
    position: int
    cluster_time: Timestamp | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TermFailed(RelayFact):
    """A term, or the candidacy for one, ended with an error; a stop is a StateEntered alone.

    `error` is the name of its class; `transient` says whether it may pass by itself.
    """

    reason: str
    error: str
    transient: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkStored(RelayFact):
    """All that became of one reply of MongoDB is on its topics; told before its checkpoint.

    Also of an empty reply, which comes once a second while nothing happens.

    `events` were sent in it with `payload_bytes` in all, `skipped` were on their topics already.
    `position` is that of its last row. `cluster_time` is up to when the outbox is relayed with it,
    None in a scan. `seconds` passed from when its rows were taken until it and all before it were
    stored and noted.
    `committed_at` is when its first row was committed by MongoDB's clock, in milliseconds; None in
    a scan, before MongoDB 6, or where nothing was sent. `occurred_at` is when it was written by its
    writer's clock, None where that is not told or nothing was sent. `parents` are the traceparents
    of some of its rows, where traces are made; `topics` is where it went.
    """

    events: int
    payload_bytes: int
    skipped: int
    position: int
    cluster_time: Timestamp | None
    seconds: float
    committed_at: datetime | None = None
    occurred_at: datetime | None = None
    topics: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopTurned(RelayFact):
    """The relay's thread goes round; told about once a second while it relays.

    Later where a send (POSTROOM_SEND_TIMEOUT_SECONDS at most), a call to MongoDB (15 s) or a
    checkpoint (20 s) holds the thread.

    For how many seconds MongoDB has not answered a read of rows, Pulsar has not stored what was
    sent, and MongoDB has not written a checkpoint; 0 where nothing is waited for.
    """

    reading_seconds: float
    sending_seconds: float
    saving_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten(RelayFact):
    """A majority has the checkpoint up to `position`; writing it took `seconds`."""

    position: int
    cluster_time: Timestamp | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsPruned(RelayFact):
    """So many relayed rows were deleted from the outbox."""

    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsFired(RelayFact):
    """So many scheduled events were due and are in the outbox; when the last of them was due."""

    events: int
    last_due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsQuarantined(RelayFact):
    """So many rows of one chunk were set aside; `reason` is that of the first.

    With a `topic` they wait for it to be opened, and return by themselves.
    """

    rows: int
    reason: str
    topic: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsReturned(RelayFact):
    """So many rows that were set aside for a topic are there now, or are gone."""

    rows: int
    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicsShut(RelayFact):
    """The topics that cannot be opened now, each with its reason; told when that changes."""

    reasons: Mapping[str, str]
