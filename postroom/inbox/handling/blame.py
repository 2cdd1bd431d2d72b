"""Blame: what becomes of an event of a group whose handler, or whose writes, have failed."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from pymongo import errors as mongo

from postroom import errors
from postroom.failures import Kind, kind_of, with_what_led_to
from postroom.inbox.handling.call import Stage
from postroom.inbox.handling.execution import judged
from postroom.inbox.handling.outcome import GiveUp, TryAgain, Undone
from postroom.server_codes import NO_SUCH_TRANSACTION

if TYPE_CHECKING:
    from postroom.inbox.handling.inbox import Inbox
    from postroom.inbox.handling.job import Job
    from postroom.settings import Settings

__all__ = ["Blame"]

PASSING = frozenset({Kind.CONFLICT, Kind.QUEUED})

Blamed = tuple[TryAgain | GiveUp | Undone, BaseException]


class Blame:
    """Whose failure it is that a group's transaction is undone; of the thread that runs it alone.

    What an event meets beside others may be their doing. So it is never given up there for having
    been tried as often as it may be: by itself it shows whose failure it is.
    """

    def __init__(self, job: Job, inbox: Inbox, settings: Settings) -> None:
        self._job = job
        self._inbox = inbox
        self._settings = settings

    def alone(self, index: int, error: BaseException) -> tuple[TryAgain | GiveUp, BaseException]:
        """Judge a member by an error that is its own."""
        began = time.monotonic() - self._job.call.seconds
        member = self._job.members[index]
        return judged(member, error, self._inbox, self._settings, began=began)

    def beside(self, index: int, error: BaseException, *, others: bool) -> Blamed:
        """Judge a member by what it has met in the transaction, perhaps beside others."""
        if others and _met_an_end(error):
            return Undone(), error
        outcome, shown = self.alone(index, error)
        if others and isinstance(outcome, GiveUp) and _is_theirs_perhaps(outcome, error):
            return Undone(), error
        if isinstance(outcome, TryAgain) and outcome.kind in PASSING:
            # By itself it waits for whatever it meets there.
            outcome = dataclasses.replace(outcome, after_seconds=0.0)
        return outcome, shown

    def of_writes(self, error: BaseException, *, last: int) -> int | None:
        """Return the member by whose returned writes the transaction has failed, if by any's.

        Of a conflict MongoDB does not say with which of them, and it is the `last` one's: so that
        the handler's groups are known to meet them.
        """
        if self._job.call.stage is not Stage.WRITES:
            return None
        if isinstance(error, errors.WriteRefused):
            return error.turn
        return last if kind_of(error) is Kind.CONFLICT else None


def _is_theirs_perhaps(outcome: GiveUp, error: BaseException) -> bool:
    """Say whether what a member is given up for may be the doing of those before it.

    They read, lock and recurse before it does; and what it has returned may be refused for a write
    of theirs that is never committed, since more of theirs is refused behind it.
    """
    return outcome.tired or isinstance(error, errors.WriteRefused)


def _met_an_end(error: BaseException) -> bool:
    """Say whether a handler has found its transaction ended, whatever it has made of that."""
    return any(
        isinstance(found, mongo.OperationFailure) and found.code == NO_SUCH_TRANSACTION
        for found in with_what_led_to(error)
    )
