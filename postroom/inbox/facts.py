"""Facts that a consumer tells its observer: once a job, never once a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom.observation import Fact

if TYPE_CHECKING:
    from postroom.observation import Observer

__all__ = [
    "ConsumerFact",
    "Handled",
    "Holding",
    "Ignored",
    "Parked",
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
class Received(ConsumerFact):
    """So many messages have come at once."""

    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored(ConsumerFact):
    """An event was acknowledged since no handler wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled(ConsumerFact):
    """A job is done: so many events were handled by it, and so many had been before."""

    handler: str
    handled: int
    repeated: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(ConsumerFact):
    """A job failed and is tried again; `counts` where that was an attempt."""

    handler: str
    events: int
    attempt: int
    after_seconds: float
    counts: bool


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
    """What stands still now, a sentence each: topics that cannot be read, or take no letters."""

    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding(ConsumerFact):
    """What is held now; told four times a second."""

    held: int
    held_bytes: int
    running: int
    waiting_to_retry: int


class Teller:
    """Tells an observer the facts of one subscription. Safe from any thread, as the observer is."""

    def __init__(self, observer: Observer, subscription: str) -> None:
        self._observer = observer
        self._subscription = subscription

    def __call__(self, kind: type[ConsumerFact], **details: Any) -> None:
        """Tell a fact of this kind."""
        self._observer.tell(kind(subscription=self._subscription, **details))
