"""Facts that a consumer tells its observer: once a job, never once a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom.observation import Fact

if TYPE_CHECKING:
    from datetime import datetime

    from postroom.observation import Observer

__all__ = [
    "ConsumerFact",
    "GivenUp",
    "Handled",
    "Ignored",
    "Load",
    "Parked",
    "ReadingChanged",
    "Received",
    "Retried",
    "StateEntered",
    "Teller",
    "TimedOut",
    "Troubled",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerFact(Fact):
    """Something that happened to a subscription in this worker."""

    subscription: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateEntered(ConsumerFact):
    """The consumer is connecting, consuming, draining, waiting (for a reason) or stopped."""

    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingChanged(StateEntered):
    """Topics are read now, or none; told by the thread that looks after all topics (Sources).

    It says nothing about the dispatcher's thread, which tells all other states.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Received(ConsumerFact):
    """So many messages have come at once."""

    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored(ConsumerFact):
    """An event was acknowledged since no handler wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled(ConsumerFact):
    """A job is done: so many events were handled by it, and so many had been before.

    `seconds` is how long a thread had it, `occurred_at` when its first event occurred.
    """

    handler: str
    handled: int
    repeated: int
    attempt: int
    seconds: float
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(ConsumerFact):
    """A job failed within `seconds` and is tried again; `counts` where that was an attempt."""

    handler: str
    events: int
    attempt: int
    after_seconds: float
    counts: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp(ConsumerFact):
    """A job failed for good within `seconds`; its events go to the dead letters."""

    handler: str
    events: int
    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut(ConsumerFact):
    """A job ran past its timeout, and its thread was replaced."""

    handler: str
    stage: str
    limit_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked(ConsumerFact):
    """A dead letter was stored; `handler` is empty where none could be called."""

    handler: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubled(ConsumerFact):
    """What stands still now, a sentence each: topics that cannot be read, or take no letters.

    Told by the thread of Sources, so that it says nothing about the dispatcher's either.
    """

    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(ConsumerFact):
    """What is held now; told four times a second by the dispatcher's thread.

    `longest_seconds` is how long a thread has had the job that runs longest, `longest` which
    handler that is and where it is; 0 and nothing where none runs. `commits` says that it waits for
    MongoDB to commit.
    """

    held: int
    held_bytes: int
    running: int
    waiting_to_retry: int
    longest_seconds: float = 0.0
    longest: str = ""
    commits: bool = False


class Teller:
    """Tells an observer the facts of one subscription. Safe from any thread, as the observer is."""

    def __init__(self, observer: Observer, subscription: str) -> None:
        self._observer = observer
        self._subscription = subscription

    def __call__(self, kind: type[ConsumerFact], **details: Any) -> None:
        """Tell a fact of this kind."""
        self._observer.tell(kind(subscription=self._subscription, **details))
