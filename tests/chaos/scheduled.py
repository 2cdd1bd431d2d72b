"""Writers that schedule, cancel and move events all the time, under kills of relays."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient

from postroom import Outbox, PlanChange, wire
from tests.waiting import wait_until

if TYPE_CHECKING:
    import threading

    from tests.site import Site

__all__ = ["Planner", "ScheduledVerdict", "disturb", "judge"]

KEYS = 20
MOST_AHEAD = 1.0


@dataclass(frozen=True, kw_only=True)
class ScheduledVerdict:
    """What became of the events that were scheduled; all but the first three are to be empty."""

    scheduled: int
    fired: int
    cancelled: int
    lost: list[str]
    twice: list[str]
    both: list[str]
    early: list[str]

    @property
    def clean(self) -> bool:
        """Whether each was fired once or cancelled, and none was early."""
        return not (self.lost or self.twice or self.both or self.early)


@dataclass
class Planner:
    """One writer: what it has scheduled, when that is due by what MongoDB told it, what is gone."""

    uri: str
    database: str
    seed: int
    due: dict[str, datetime] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)

    def write(self, stopping: threading.Event) -> None:
        """Schedule, cancel and move until it is told to stop."""
        dice = random.Random(self.seed)
        with MongoClient[Any](self.uri) as client:
            outbox = Outbox(client[self.database], key="patientId")
            recent: list[tuple[str, str | None]] = []
            for number in range(1_000_000):
                if stopping.is_set():
                    return
                # Those with a name and those without are moved each in a way of their own.
                name = f"{self.seed}-{number}" if number % 3 == 0 else None
                self._schedule(outbox, dice, name, recent)
                self._change(outbox, dice, *dice.choice(recent))
                stopping.wait(0.005)

    def _schedule(
        self,
        outbox: Outbox,
        dice: random.Random,
        name: str | None,
        recent: list[tuple[str, str | None]],
    ) -> None:
        at = _ahead(dice)
        data = {"patientId": str(dice.randrange(KEYS))}
        event = {"name": "MedicineNoticed", "data": data}
        (event_id,) = outbox.publish(event, deliver_at=at, schedule=name)
        self.due[event_id] = at
        recent.append((event_id, name))
        del recent[:-50]

    def _change(self, outbox: Outbox, dice: random.Random, event_id: str, name: str | None) -> None:
        which: dict[str, Any] = {"event_id": event_id} if name is None else {"schedule": name}
        if dice.random() < 0.5:
            if outbox.transact(lambda tx: tx.cancel(**which)) is PlanChange.DONE:
                self.cancelled.add(event_id)
        else:
            at = _ahead(dice)
            if outbox.transact(lambda tx: tx.reschedule(**which, deliver_at=at)):
                self.due[event_id] = at


def disturb(site: Site, *, seconds: float, dice: random.Random) -> None:
    """Kill, freeze and stop relays, so that there is nearly always one."""
    workers = [site.relay(POSTROOM_MUTEX_RETRY_SECONDS="0.1") for _ in range(2)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(dice.uniform(1.0, 3.0))
        n = dice.randrange(len(workers))
        match dice.choice(["kill", "freeze", "stop"]):
            case "kill":
                workers[n].kill()
            case "freeze":
                workers[n].signal(signal.SIGSTOP)
                time.sleep(dice.uniform(1.0, 7.0))
                workers[n].signal(signal.SIGCONT)
                continue
            case _:
                workers[n].stop()
        workers[n] = site.relay(POSTROOM_MUTEX_RETRY_SECONDS="0.1")


def judge(site: Site, planners: list[Planner]) -> ScheduledVerdict:
    """Wait until nothing is scheduled any more, and compare the topic with what was planned."""
    plan = site.database[wire.SCHEDULED]
    due = {event_id: at for each in planners for event_id, at in each.due.items()}
    cancelled = {event_id for each in planners for event_id in each.cancelled}
    wait_until(lambda: plan.find_one() is None, seconds=90, description="an empty plan")
    fired = due.keys() - cancelled
    wait_until(
        lambda: len(set(site.stored())) >= len(fired), seconds=60, description="what was fired"
    )
    stored = site.stored()
    moves = site.database[wire.FIRED].find()
    at = {str(each): move["firedAt"] for move in moves for each in move["firedIds"]}
    return ScheduledVerdict(
        scheduled=len(due),
        fired=len(fired),
        cancelled=len(cancelled),
        lost=sorted(fired - set(stored)),
        twice=sorted(each for each, times in Counter(stored).items() if times > 1),
        both=sorted(cancelled & set(stored)),
        early=sorted(each for each in fired if each in at and at[each] < due[each]),
    )


def _ahead(dice: random.Random) -> datetime:
    found = datetime.now(UTC) + timedelta(seconds=dice.uniform(0, MOST_AHEAD))
    # As MongoDB keeps times.
    return found.replace(microsecond=found.microsecond // 1000 * 1000)
