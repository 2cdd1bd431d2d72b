"""Mailbox: what other threads tell the dispatcher."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pulsar

    from postroom.inbox.handling.call import Stage
    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.handling.job import Job
    from postroom.inbox.handling.outcome import Outcome
    from postroom.inbox.scheduling.delivery import Acknowledger
    from postroom.inbox.scheduling.held import Held
    from postroom.inbox.scheduling.work import Work

__all__ = ["CutOff", "Failed", "Finished", "Incoming", "Item", "LetterDone", "Mailbox", "Woken"]

MOST_AT_ONCE = 1000


class Incoming(NamedTuple):
    """A message has come."""

    source: Acknowledger
    message: pulsar.Message
    size: int


class Finished(NamedTuple):
    """A job has ended, and this came of it.

    Told by its thread, or by the dispatcher's where Celery did not take its task, or it was
    revoked.
    """

    job: Job
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class CutOff:
    """A job that ran for too long can do nothing more; MongoDB has `answered` to that or not."""

    work: Work
    job: Job
    stage: Stage
    answered: bool


@dataclass(frozen=True, slots=True)
class LetterDone:
    """A dead letter is stored, or was handed back unstored; told by its letterbox."""

    held: Held
    handler: Handler | None
    stored: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """A thread that feeds the dispatcher has failed."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Woken:
    """Something outside has changed."""


Item = Incoming | Finished | CutOff | LetterDone | Failed | Woken


class Mailbox:
    """The one way from any thread to the dispatcher's. Thread-safe."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()

    def post(self, item: Item) -> None:
        """Tell the dispatcher something."""
        self._items.put(item)

    def take(self, seconds: float) -> list[Item]:
        """Wait for something to be told; return it with what else has gathered meanwhile."""
        try:
            found = [self._items.get(timeout=seconds)]
        except queue.Empty:
            return []
        more = min(self._items.qsize(), MOST_AT_ONCE)
        return [*found, *(self._items.get_nowait() for _ in range(more))]
