"""Outcome: what came of a job, judged in its thread; the dispatcher does what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from postroom.failures import Kind

__all__ = ["Applied", "GiveUp", "Lost", "Outcome", "Shared", "Suspected", "TryAgain", "Undone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The handler's effect is there, by this call or by an earlier one.

    It `waited` where others of the handler that write the same had their turn first.
    """

    handled: int
    repeated: int
    waited: bool = field(default=False, compare=False)

    def more(self, *, handled: int = 0, repeated: int = 0) -> Applied:
        """Return it with so many more events."""
        if not (handled or repeated):
            return self
        return Applied(
            handled=self.handled + handled,
            repeated=self.repeated + repeated,
            waited=self.waited,
        )

    def __str__(self) -> str:
        """Say it as Flower shows it."""
        if not self.repeated:
            return "handled"
        return f"handled {self.handled}, {self.repeated} had been handled before"


@dataclass(frozen=True, slots=True, kw_only=True)
class TryAgain:
    """The handler is called again after a wait; an outage does not count as an attempt.

    A conflict is `sole` where no other of its handler was at work beside it here.
    """

    after_seconds: float
    counts: bool
    kind: Kind = field(default=Kind.OWN, compare=False)
    reason: str = field(default="", compare=False)
    sole: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The event goes to the dead letters, for a reason; of a batch all, or the one at fault.

    `tired` where it was tried as often as it may be; otherwise it can never succeed.
    """

    reason: str
    whole: bool = False
    tired: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Suspected:
    """A worker ended while it was at work on the event: the handler is not called beside others."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The thread came back without a word: Celery failed around the job."""


@dataclass(frozen=True, slots=True)
class Undone:
    """The transaction that the event shared is undone, through no fault of its own.

    It was `unbegun` where that was committed without it, since it had been open for long.
    """

    unbegun: bool = False


@dataclass(frozen=True, slots=True)
class Shared:
    """What came of each event of a group, in their order; what is applied came by one commit."""

    outcomes: tuple[Applied | TryAgain | GiveUp | Suspected | Lost | Undone, ...]


Outcome = Applied | TryAgain | GiveUp | Suspected | Lost | Undone | Shared
