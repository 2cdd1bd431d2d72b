"""Dispatcher: gives each event to its handlers in order, and acknowledges it when all are done."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from postroom import errors
from postroom.inbox import facts
from postroom.inbox.handling.call import Stage
from postroom.inbox.handling.outcome import (
    Applied,
    GiveUp,
    Lost,
    Shared,
    Suspected,
    TryAgain,
    Undone,
)
from postroom.inbox.scheduling.delivery import Delivery
from postroom.inbox.scheduling.elsewhere import ELSEWHERE
from postroom.inbox.scheduling.held import Held
from postroom.inbox.scheduling.in_hand import InHand
from postroom.inbox.scheduling.mailbox import CutOff, Failed, Finished, Incoming, LetterDone
from postroom.inbox.scheduling.schedule import Schedule

if TYPE_CHECKING:
    from postroom.inbox.facts import Teller
    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.handling.job import Job
    from postroom.inbox.handling.outcome import Outcome
    from postroom.inbox.parking.parking import Parking
    from postroom.inbox.scheduling.admission import Admission
    from postroom.inbox.scheduling.intake import Intake
    from postroom.inbox.scheduling.mailbox import Item, Mailbox
    from postroom.inbox.scheduling.patience import Patience
    from postroom.inbox.scheduling.underway import Underway
    from postroom.inbox.scheduling.work import Work

__all__ = ["Dispatcher"]

TICK_SECONDS = 0.25
DRAIN_SECONDS = 0.05
# Less than most jobs take, of which some threads have another one waiting.
GATHER_SECONDS = 0.002


class Dispatcher:
    """Decides, in its consumer's one thread, for as long as one connection lasts.

    It alone touches what is held, scheduled, under way and being parked; other threads reach it
    through the mailbox. What they share with it or with each other (Mailbox, Admission, Isolation,
    a job's Call and Standstill, Troubles) has a lock of its own or is frozen. A Source, on which it
    acknowledges, is opened and closed by one thread at a time: its keeper's, or that of Sources.
    Events of one key are handled one after another, in the topic's order, also while an earlier
    one waits to be tried again: a negative acknowledgement would let the later ones overtake.
    Nothing is acknowledged before every handler has handled it or the dead-letter topic has
    stored it.
    """

    def __init__(
        self,
        *,
        intake: Intake,
        mailbox: Mailbox,
        admission: Admission,
        underway: Underway,
        parking: Parking,
        patience: Patience,
        tell: Teller,
    ) -> None:
        self._intake = intake
        self._mailbox = mailbox
        self._admission = admission
        self._underway = underway
        self._parking = parking
        self._patience = patience
        self._tell = tell
        self._schedule = Schedule()
        self._in_hand = InHand()
        self._next_tick = 0.0

    def step(self) -> None:
        """Wait a moment for something to happen, and do what follows from it.

        Raises:
            ServiceUnavailable: a dead letter could not be stored; what is held comes again.
            Exception: what a feeding thread failed with.

        """
        self._start_ready()
        if not self._underway.free:
            # Nothing more can be started. Woken for each message and each job that ends, this
            # thread would take the processor from the handlers.
            time.sleep(GATHER_SECONDS)
        items = self._mailbox.take(self._schedule.wait_seconds(TICK_SECONDS))
        received = sum(self._take(item) for item in items)
        if received:
            self._tell(facts.Received, messages=received)
        if time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + TICK_SECONDS
            self._on_tick()

    def drain(self, seconds: float) -> int:
        """Let running handlers finish, start none; return how many had not after `seconds`."""
        self._underway.withdraw()
        try:
            self._finish_underway(time.monotonic() + seconds)
        finally:
            # Whatever happens: nobody looks after them from now on.
            left = self._underway.abandon()
        return left

    def _finish_underway(self, deadline: float) -> None:
        while (len(self._underway) or self._parking.is_busy) and time.monotonic() < deadline:
            for item in self._mailbox.take(DRAIN_SECONDS):
                match item:
                    case Finished(job, outcome):
                        work = self._underway.end(job)
                        if work is not None and isinstance(outcome, (Applied, Shared)):
                            self._applied(work, job, outcome)
                    case LetterDone(stored=True):
                        self._parked(item)
                    case LetterDone():
                        self._parking.gave_up()  # not acknowledged, it comes again

    def _take(self, item: Item) -> bool:
        """Do what follows from an item, and say whether it is a new message."""
        match item:
            case Incoming():
                return self._receive(item)
            case Finished(job, outcome):
                work = self._underway.end(job)
                if work is not None:
                    judged = self._underway.judged(job) if isinstance(outcome, Lost) else outcome
                    learnt = self._schedule.conflicts.learn(job, judged, self._underway)
                    self._decide(work, job, learnt)
            case CutOff(work, job):
                late = self._underway.after_timeout(item)
                self._decide(work, job, self._schedule.conflicts.learn(job, late, self._underway))
            case LetterDone():
                self._parked(item)
            case Failed(error):
                raise error
        return False

    def _receive(self, item: Incoming) -> bool:
        delivery = Delivery.of(item.message, item.source, size=item.size)
        if self._in_hand.has(delivery.place):
            # After a reconnect the broker sends again what it has no acknowledgement of.
            self._admission.give_back(item.size)
            return False
        if self._in_hand.had(delivery.place):
            self._admission.give_back(item.size)
            delivery.source.acknowledge(delivery.message)
            return False
        held = Held(delivery)
        self._in_hand.take(held)
        try:
            wanted = self._intake.open(held)
        except errors.InvalidEvent as error:
            held.failed(None, GiveUp(str(error)))
            self._parking.park(held, None, str(error))
            return True
        if wanted:
            self._schedule.add(held)
        else:
            self._tell(facts.Ignored)
            self._done(held, None)
        return True

    def _start_ready(self) -> None:
        while (work := self._schedule.take(self._underway)) is not None:
            if work.handler is ELSEWHERE:
                self._leave(work)
            elif not self._underway.start(
                work, contends=self._schedule.conflicts.are_met(work.handler)
            ):
                self._schedule.put_back(work)
                return

    def _leave(self, work: Work) -> None:
        """Do what becomes of an event that no handler here wants and another worker's may."""
        (held,) = work.deliveries
        name = "" if held.event is None else held.event.name
        match self._intake.elsewhere.judged(held, name):
            case TryAgain() as again:
                self._schedule.after(again.after_seconds, work)
            case GiveUp() as given_up:
                held.failed(None, given_up)
                self._parking.park(held, None, given_up.reason)
            case Applied():
                self._tell(facts.Ignored)
                self._done(held, ELSEWHERE)

    def _decide(self, work: Work, job: Job, outcome: Outcome) -> None:
        match outcome:
            case Shared():
                self._divide(work, job, outcome)
            case Undone():
                self._schedule.at_once(work)
            case Applied() as applied:
                self._applied(work, job, applied)
                self._schedule.go_on(work)
            case Suspected() | TryAgain(counts=True) | GiveUp(whole=False) if (
                len(work.deliveries) > 1
            ):
                self._schedule.split(work)
            case Suspected():
                self._schedule.alone(work)
            case TryAgain() as again:
                self._failed(work, job, again)
                self._schedule.after(again.after_seconds, work.again(counts=again.counts))
            case GiveUp() as given_up:
                self._tell(
                    facts.GivenUp,
                    handler=work.handler.name,
                    events=len(work.deliveries),
                    attempt=work.attempt,
                    seconds=job.call.seconds,
                )
                for held in work.deliveries:
                    held.failed(work.handler, given_up)
                    self._parking.park(held, work.handler, given_up.reason)
                self._schedule.go_on(work)

    def _divide(self, work: Work, job: Job, shared: Shared) -> None:
        """Go on with what is left of a group: each event by itself, those of one key in order.

        Or together, where they were merely not begun.
        """
        self._applied(work, job, shared)
        left: dict[Held, tuple[Job, Outcome]] = {}
        for held, member, outcome in zip(
            work.deliveries, job.members, shared.outcomes, strict=True
        ):
            judged = self._underway.judged(member) if isinstance(outcome, Lost) else outcome
            if isinstance(judged, GiveUp):
                self._decide(work.of(held), member, judged)
            elif not isinstance(judged, Applied):
                left[held] = member, judged
        if work.goes_on_together(shared):
            self._schedule.at_once(work.of(*left))
            return
        for part in work.apart(left):
            for (behind,) in part.then:
                member, failure = left[behind]
                if isinstance(failure, TryAgain):
                    self._failed(work.of(behind), member, failure)
            self._decide(part, *left[part.deliveries[0]])

    def _failed(self, work: Work, job: Job, outcome: TryAgain) -> None:
        for held in work.deliveries:
            held.failed(work.handler, outcome)
        self._tell(
            facts.Retried,
            handler=work.handler.name,
            events=len(work.deliveries),
            attempt=work.attempt,
            after_seconds=outcome.after_seconds,
            counts=outcome.counts,
            seconds=job.call.seconds,
        )

    def _applied(self, work: Work, job: Job, outcome: Applied | Shared) -> None:
        deliveries, applied = work.applied(outcome)
        for held in deliveries:
            self._done(held, work.handler)
        if deliveries:
            self._tell(
                facts.Handled,
                handler=work.handler.name,
                handled=applied.handled,
                repeated=applied.repeated,
                attempt=work.attempt,
                seconds=job.call.seconds,
                occurred_at=job.events[0].occurred_at,
            )

    def _done(self, held: Held, handler: Handler | None) -> None:
        if not held.done_by(handler):
            return
        self._schedule.done(held)
        self._in_hand.let_go(held)
        self._admission.give_back(held.delivery.size)
        held.delivery.source.acknowledge(held.delivery.message)

    def _parked(self, item: LetterDone) -> None:
        self._parking.settled(item)
        self._tell(facts.Parked, handler=item.handler.name if item.handler else "")
        self._done(item.held, item.handler)

    def _on_tick(self) -> None:
        for job in self._underway.timed_out():
            self._tell(
                facts.TimedOut,
                handler=job.handler.name,
                stage=job.call.stage.name,
                limit_seconds=job.call.limit_seconds,
            )
        self._parking.report()
        self._intake.elsewhere.keep()
        self._patience.look(itertools.chain(self._schedule, self._underway))
        held, held_bytes = self._admission.held
        running = self._underway.running
        self._tell(
            facts.Load,
            held=held,
            held_bytes=held_bytes,
            running=len(running),
            waiting_to_retry=self._schedule.later,
            **_longest(running),
        )


def _longest(running: list[Job]) -> dict[str, Any]:
    """Return what facts.Load tells of the job that a thread has had for longest."""
    if not running:
        return {}
    longest = max(running, key=lambda job: job.call.seconds)
    stage = longest.call.stage
    return {
        "longest_seconds": longest.call.seconds,
        "longest": f"{longest.handler.name} {stage.value}",
        "commits": stage is Stage.COMMIT,
    }
