"""Sharing: events of one handler, each in a task of its own, in one transaction."""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING

from postroom import errors
from postroom.inbox.handling.blame import Blame
from postroom.inbox.handling.call import Stage
from postroom.inbox.handling.execution import forget
from postroom.inbox.handling.last_words import speaking
from postroom.inbox.handling.outcome import (
    Applied,
    GiveUp,
    Lost,
    Shared,
    Suspected,
    TryAgain,
    Undone,
)
from postroom.store.inbox_rows import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pymongo.client_session import ClientSession

    from postroom.inbox.handling.applying import Applying
    from postroom.inbox.handling.inbox import Inbox
    from postroom.inbox.handling.job import Job
    from postroom.settings import Settings

__all__ = ["Sharing"]

logger = logging.getLogger(__name__)

# No further event is begun in a transaction that has been open for so long.
LONGEST_SECONDS = 0.25

Member = Applied | TryAgain | GiveUp | Suspected | Lost | Undone
Result = tuple[Member, BaseException | None]


class _Undone(errors.Retry):
    """Another event has undone the transaction that this one shared; it is handled again."""


class Sharing:
    """Runs the members of a group one after another in one transaction; of the thread that does.

    The dispatcher's makes it, and refuses members whose tasks Celery does not take, before a thread
    has it. Each is handled within its own Celery task, and that lasts until the commit. So the next
    one's task is run within the one before it, as when a task applies another, each in a context of
    its own. Where one fails the transaction is undone and nothing more is begun: only that one has
    failed, the others go back. What a handler meets in a transaction that an earlier member has
    spoilt without raising is nobody's failure.
    """

    def __init__(self, job: Job, inbox: Inbox, settings: Settings) -> None:
        self._job = job
        self._inbox = inbox
        self._blame = Blame(job, inbox, settings)
        self._borrowed: tuple[Applying, ClientSession] | None = None
        self._is_open = False
        self._tasks: Sequence[Callable[[], object] | None] = ()
        self._context = contextvars.Context()
        self._next = 0
        # The ids of the events that are done, should the transaction be committed, by member.
        self._passed: dict[int, str] = {}
        self._results: list[Result] = [(Undone(), None)] * len(job.members)

    def refuse(self, index: int, outcome: GiveUp) -> None:
        """End a member without its handler."""
        self._results[index] = outcome, None

    def run(self, tasks: Sequence[Callable[[], object] | None]) -> None:
        """Run the members' tasks, each of which calls execute(); None for one that was refused."""
        self._tasks, self._context = tasks, contextvars.copy_context()
        try:
            if not self._job.noted:
                self._share()
            elif not self._has_suspects():
                self._share_noted()
        except Exception as error:  # noqa: BLE001 - each by itself will meet it, and say so
            name, kind = self._job.handler.name, type(error).__name__
            logger.debug("A group of %s could not begin (%s)", name, kind)
        finally:
            self._job.call.end(Shared(tuple(outcome for outcome, _ in self._results)))
            # The tasks have this in turn, and errors the frames that have: each group would stay
            # until Python's collector comes by.
            self._tasks, self._results = (), []

    def execute(self, index: int) -> Result:
        """Handle a member, then all behind it; return what came of it once that is known."""
        self._results[index] = Undone(), _Undone()
        try:
            self._handle(index)
        except BaseException as raised:  # noqa: BLE001 - it is judged, shown and ends here
            self._results[index] = self._undo(index, raised)
        else:
            self._passed[index] = identity(self._job.events[index].id)
            self._go_on()
        if isinstance(self._results[index][0], Applied):
            self._do_after(index)
        return self._results[index]

    # --- the transaction ---------------------------------------------------------------------

    def _has_suspects(self) -> bool:
        found = self._inbox.begin_together(self._job.handler, self._job.events)
        for index, event in enumerate(self._job.events):
            if identity(event.id) in found:
                self._results[index] = Suspected(), None
        return bool(found)

    def _share_noted(self) -> None:
        try:
            self._share()
        finally:
            applied = all(isinstance(outcome, Applied) for outcome, _ in self._results)
            forget(self._job, self._inbox, for_good=applied)

    def _share(self) -> None:
        job = self._job
        with self._inbox.sharing(job.handler, job.events, job.call) as (applying, session):
            self._borrowed = applying, session
            applying.open(session, job.call)
            self._is_open = True
            self._go_on()
        applying.aftermath.settle()

    def _go_on(self) -> None:
        """Run the next member's task, which goes on by itself; commit behind the last one."""
        while self._is_open and not self._job.call.is_cut_off:
            if self._next == len(self._tasks) or (self._passed and self._is_large):
                self._is_open = False
                self._commit()
                return
            index, self._next = self._next, self._next + 1
            if (task := self._tasks[index]) is not None:
                self._job.call.enter(Stage.RECEIVERS, turn=index)
                # Unless the task says otherwise Celery has failed around it.
                self._results[index] = Lost(), None
                self._context.copy().run(task)

    @property
    def _is_large(self) -> bool:
        applying, _ = self._lent
        return applying.writes.are_many or self._job.call.seconds > LONGEST_SECONDS

    def _commit(self) -> None:
        applying, session = self._lent
        fresh = set(applying.fresh)
        passed = reversed(self._passed.items())
        handled = {event_id: index for index, event_id in passed if event_id in fresh}
        try:
            if handled:
                less = fresh - handled.keys()
                applying.commit(session, self._job.call, less=less)
        except Exception as error:  # noqa: BLE001 - each that is not at fault is handled by itself
            self._undo_all(error)
            return
        for index, event_id in self._passed.items():
            is_first = handled.get(event_id) == index
            self._results[index] = Applied(handled=is_first, repeated=not is_first), None
        for index in range(self._next, len(self._tasks)):
            if self._tasks[index] is not None:
                self._results[index] = Undone(unbegun=True), None

    def _undo_all(self, raised: Exception) -> None:
        """Undo what all have done; at fault is at most the one whose writes were refused."""
        applying, session = self._lent
        error = applying.undone(session, self._job.call, raised)
        guilty = self._blame.of_writes(error, last=max(self._passed))
        for index in self._passed:
            self._results[index] = Undone(), error if guilty is None else _Undone()
        if guilty is not None:
            others = len(self._passed) > 1
            self._results[guilty] = self._blame.beside(guilty, error, others=others)

    @property
    def _lent(self) -> tuple[Applying, ClientSession]:
        if self._borrowed is None:
            raise AssertionError
        return self._borrowed

    # --- one member --------------------------------------------------------------------------

    def _handle(self, index: int) -> None:
        applying, session = self._lent
        job, event = self._job, self._job.events[index]
        job.call.enter(Stage.PREPARING)
        event_id = identity(event.id)
        if event_id not in applying.fresh or event_id in self._passed.values():
            return
        prepared = job.handler.prepared(event)
        job.call.enter(Stage.HANDLER)
        with speaking(lambda: self._inbox.tell(job.handler, [event])):
            applying.handle(prepared, session, turn=index)
        if job.handler.wants_session:
            # What the next one looks for in the transaction it has to find there.
            applying.send(session, job.call)

    def _undo(self, index: int, raised: BaseException) -> Result:
        applying, session = self._lent
        self._is_open = False
        error = applying.undone(session, self._job.call, raised)
        if error is not raised:
            error.__cause__ = raised
        return self._blame.beside(index, error, others=bool(self._passed))

    def _do_after(self, index: int) -> None:
        applying, _ = self._lent
        try:
            applying.aftermath.come_for(self._job.events[index], self._job.call, turn=index)
        except BaseException as raised:  # noqa: BLE001 - it is judged, shown and ends here
            self._results[index] = self._blame.alone(index, raised)
