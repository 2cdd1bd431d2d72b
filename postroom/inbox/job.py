"""Job: one call of a handler, as a Celery task runs it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pymongo.errors import PyMongoError

from postroom import errors
from postroom.inbox import retry
from postroom.inbox.inbox import Applied, Call
from postroom.store.inbox_rows import identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.events import Event
    from postroom.inbox.delivery import Delivery
    from postroom.inbox.handlers import Handler
    from postroom.inbox.inbox import Inbox
    from postroom.settings import Settings

__all__ = ["Job"]


@dataclass(slots=True, eq=False)
class Job:
    """Deliveries to be handed to a handler, and what came of it.

    run() is called in a thread of the runner, once; everything else belongs to the dispatcher.
    `then` are the other parts of a batch that was split, to be run after this one.
    """

    handler: Handler
    deliveries: list[Delivery]
    attempt: int
    then: list[list[Delivery]] = field(default_factory=list)
    started: float | None = None
    applied: Applied | None = None
    verdict: retry.Verdict | None = None
    abandoned: bool = False
    call: Call = field(default_factory=Call)

    @property
    def task_id(self) -> str:
        """The id of its Celery task: the event's, with the handler's where there are several."""
        first = self.deliveries[0]
        own = identity(first.event_id)
        if len(self.deliveries) > 1:
            return f"{own}+{len(self.deliveries) - 1}"
        return own if len(first.handlers) == 1 else f"{own}:{self.handler.name}"

    def run(self, inbox: Inbox, settings: Settings) -> Applied:
        """Apply the handler; the verdict is set where it fails, and the error passed on."""
        self.started = time.monotonic()
        events = [d.event for d in self.deliveries if d.event is not None]
        suspect, begun = any(delivery.suspect for delivery in self.deliveries), False
        try:
            if suspect:
                self._begin(inbox, events, settings)
                begun = True
            self.applied = inbox.apply(self.handler, events, self.call)
        except Exception as error:
            self.verdict = self._judged(error, settings)
            raise
        except BaseException as error:
            # A handler that calls sys.exit() must not end the worker, nor its event be lost.
            name = type(error).__name__
            ended = errors.InboxError(f"The handler {self.handler.name} raised {name}")
            self.verdict = self._judged(RuntimeError(str(ended)), settings)
            raise ended from error
        finally:
            if begun:
                self.end(inbox)
        return self.applied

    def _begin(
        self, inbox: Inbox, events: Sequence[Event[dict[str, Any]]], settings: Settings
    ) -> None:
        if len(events) > 1 and inbox.begun(self.handler, events):
            # A counted failure splits the batch, so that the one which ends workers is found.
            raise errors.Retry("One of these events has ended its worker")
        ended = inbox.begin(self.handler, events)
        # Once may be a mere restart.
        limit = max(2, self.handler.max_attempts or settings.max_attempts)
        if ended >= limit:
            self.end(inbox)
            raise errors.Reject(f"The worker ended {ended} times while the handler ran")

    def end(self, inbox: Inbox) -> None:
        """Note that the job's end was no end of its worker."""
        # Left behind by an outage, a row counts one attempt too many, and expires.
        with contextlib.suppress(PyMongoError):
            events = [d.event for d in self.deliveries if d.event is not None]
            inbox.end(self.handler, events, for_good=self.applied is not None)

    def _judged(self, error: BaseException, settings: Settings) -> retry.Verdict:
        failures = self.deliveries[0].failures.get(self.handler.name)
        return retry.judge(
            error,
            handler=self.handler,
            attempt=self.attempt,
            settings=settings,
            since=failures.first if failures else None,
        )
