"""Draining: one call of drain(), in a thread that is waited for no longer than it may take."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from postroom import errors, wire
from postroom.errors import PostroomError
from postroom.inbox.handling.call import Call
from postroom.inbox.handling.execution import execute
from postroom.inbox.handling.handlers import registry
from postroom.inbox.handling.inbox import Inbox
from postroom.inbox.handling.job import Job
from postroom.inbox.handling.outcome import Applied, GiveUp, TryAgain
from postroom.store.codec import RAW, decoded
from postroom.testing.published import Published, of_event, of_row
from postroom.testing.report import DeadLetter, Drained, Handled, Quarantined, Relayed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pymongo.database import Database

    from postroom.events import Event
    from postroom.inbox.handling.handlers import Handler
    from postroom.settings import Settings
    from postroom.testing.mail import Mail

__all__ = ["Draining", "NotDrained"]

# Of an event that a conflict or an outage has met, which is no attempt.
PAUSE_SECONDS = 0.02


class NotDrained(PostroomError):
    """Not all that waited was relayed and consumed in time."""


class Draining:
    """Relays and consumes until nothing waits. What is `relayed` already is left out.

    `fire` moves into the outbox what is due by now.
    """

    def __init__(
        self,
        mail: Mail,
        *,
        database: Database[Any],
        handlers_database: Database[Any],
        settings: Settings,
        relayed: set[str],
        fire: Callable[[], None],
    ) -> None:
        self._mail = mail
        self._database = database
        self._handlers_database = handlers_database
        self._settings = settings
        self._relayed = relayed
        self._fire = fire
        self._report = Drained()
        self._stopping = threading.Event()
        self._waits_for = "MongoDB"
        self._failure: BaseException | None = None

    def within(self, seconds: float) -> Drained:
        """Do it, and return what happened.

        Raises:
            NotDrained: it takes longer.
            Exception: a service has failed.

        """
        thread = threading.Thread(target=self._run, name="postroom-drain", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            self._stopping.set()
            raise NotDrained(
                f"drain() was not over after {seconds:g} s: it waits for {self._waits_for}. "
                f"Until then:\n{self._report}"
            )
        if self._failure is not None:
            raise self._failure
        return self._report

    def _run(self) -> None:
        try:
            while not self._stopping.is_set() and (self._relay() or self._consume()):
                pass
        except BaseException as failure:  # noqa: BLE001 - raised where drain() was called
            self._failure = failure

    def _relay(self) -> bool:
        """Send the rows that wait, and say whether there were any."""
        self._waits_for = "MongoDB's rows of the outbox"
        self._fire()
        rows = self._database[wire.OUTBOX].with_options(codec_options=RAW)
        found = {str(raw["_id"]): decoded(bytes(raw.raw)) for raw in rows.find(sort=[("_id", 1)])}
        new = {row_id: row for row_id, row in found.items() if row_id not in self._relayed}
        for row_id, row in new.items():
            self._relayed.add(row_id)
            self._waits_for = f"the broker, which is to store event {row_id}"
            try:
                made = self._mail.send(row)
            except errors.Poison as poison:
                self._report.quarantined.append(Quarantined(row_id=row_id, reason=str(poison)))
            else:
                event = of_row(row, transaction=0, database=self._database.name)
                self._report.published.append(Relayed(event=event, topic=made.topic))
        return bool(new)

    def _consume(self) -> bool:
        """Handle what waits at the broker, and say whether there was anything."""
        waiting = self._mail.on_their_way()
        for topic, subscription in waiting:
            batches: dict[str, list[Event[Any]]] = {}
            while (topic, subscription) in self._mail.on_their_way():
                self._waits_for = f"an event of {topic} for the subscription {subscription!r}"
                if self._stopping.is_set():
                    return False
                self._take(topic, subscription, batches)
            for name, events in batches.items():
                handler = registry.handlers[name]
                for start in range(0, len(events), handler.batch):
                    self._handle(handler, events[start : start + handler.batch], subscription)
        return bool(waiting)

    def _take(self, topic: str, subscription: str, batches: dict[str, list[Event[Any]]]) -> None:
        delivery = self._mail.receive(topic, subscription)
        if delivery is None:
            return
        try:
            event = self._mail.opened(delivery, topic)
        except errors.InvalidEvent as error:
            nameless = Published.unreadable(delivery.event_id, self._database.name)
            self._park([nameless], "", subscription, attempts=0, reason=str(error))
            return
        wanted = registry.for_event(event.name, subscription)
        if not wanted:
            self._report.ignored.append(of_event(event, self._database.name))
        for handler in wanted:
            if handler.batched:
                batches.setdefault(handler.name, []).append(event)
            else:
                self._handle(handler, [event], subscription)

    def _handle(self, handler: Handler, events: Sequence[Event[Any]], subscription: str) -> None:
        keep = timedelta(days=self._settings.inbox_days)
        inbox = Inbox(self._handlers_database, subscription=subscription, keep=keep)
        attempt, shown = 1, [of_event(each, self._database.name) for each in events]
        while not self._stopping.is_set():
            self._waits_for = f"the handler {handler.name}, at event {events[0].id}"
            outcome = _tried(handler, events, attempt, inbox, self._settings)
            match outcome:
                case Applied():
                    self._report.handled += [
                        Handled(
                            event=each,
                            handler=handler.name,
                            subscription=subscription,
                            attempts=attempt,
                            repeated=not outcome.handled,
                        )
                        for each in shown
                    ]
                    return
                case TryAgain():
                    attempt += outcome.counts
                    self._stopping.wait(0 if outcome.counts else PAUSE_SECONDS)
                case GiveUp() if len(events) > 1 and not outcome.whole:
                    for each in events:
                        self._handle(handler, [each], subscription)
                    return
                case _:
                    reason = outcome.reason if isinstance(outcome, GiveUp) else str(outcome)
                    self._park(shown, handler.name, subscription, attempts=attempt, reason=reason)
                    return

    def _park(
        self,
        events: Sequence[Published],
        handler: str,
        subscription: str,
        *,
        attempts: int,
        reason: str,
    ) -> None:
        self._report.dead_letters += [
            DeadLetter(
                event=each,
                handler=handler,
                subscription=subscription,
                attempts=attempts,
                reason=reason,
            )
            for each in events
        ]


def _tried(
    handler: Handler, events: Sequence[Event[Any]], attempt: int, inbox: Inbox, settings: Settings
) -> object:
    call = Call(handler.timeout_seconds or settings.handler_timeout_seconds)
    call.begin()
    job = Job(
        handler=handler,
        events=tuple(events),
        attempt=attempt,
        task_id=events[0].id,
        topic=events[0].topic,
        call=call,
    )
    outcome, _ = execute(job, inbox, settings)
    return outcome
