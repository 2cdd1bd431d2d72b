"""Errand: a job on its way through Celery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.inbox.consumer import Consumer
    from postroom.inbox.handling.job import Job
    from postroom.inbox.handling.outcome import GiveUp, Outcome
    from postroom.inbox.handling.sharing import Sharing

__all__ = ["Errand", "members"]


@dataclass(frozen=True, slots=True, eq=False)
class Errand:
    """A job on its way through Celery, and the consumer that executes it.

    One of a group's belongs to what has its members share a transaction, and is the `index`th.
    """

    consumer: Consumer
    job: Job
    sharing: Sharing | None = None
    index: int = 0

    def execute(self) -> tuple[Outcome, BaseException | None]:
        """Run it in the calling thread; return what came of it, and why where it failed."""
        if self.sharing is not None:
            return self.sharing.execute(self.index)
        return self.consumer.execute(self.job)

    def refuse(self, outcome: GiveUp) -> None:
        """End it without its handler."""
        if self.sharing is not None:
            self.sharing.refuse(self.index, outcome)
        else:
            self.job.call.end(outcome)


def members(errand: Errand) -> list[Errand]:
    """Return what is a task of its own: the errand itself, or each member of a group."""
    if not errand.job.members:
        return [errand]
    sharing = errand.consumer.sharing(errand.job)
    return [
        Errand(errand.consumer, member, sharing, index)
        for index, member in enumerate(errand.job.members)
    ]
