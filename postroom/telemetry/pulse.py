"""Pulse: whether one thread goes on, what it waits for, and whether it is ready; by its facts."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from postroom.relay.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postroom.observation import Fact

__all__ = ["Hang", "Pulse", "of_consumer", "of_relay"]

# Within its own limits for each service, a thread may be silent a little longer than any one of
# them may hang; while a relay opens its term it reads topics, which takes as long as it takes.
SILENCE = 2.0
SILENCE_WHILE_OPENING = 10.0
READY = {State.STANDBY.value, State.RELAYING.value, State.PAUSED.value, "consuming"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """Something that has stood still for longer than it may.

    `what` is a word of a small set, for a metric; `who` is the relay or consumer; `sentence` tells
    the rest. A `thread` that hangs makes its worker one that is not alive.
    """

    who: str
    what: str
    sentence: str
    seconds: float
    thread: bool = False


@dataclass(slots=True)
class _Waiting:
    """What is waited for, since when by the monotonic clock, and as what that is told."""

    since: float
    sentence: str


@dataclass(slots=True)
class _Noted:
    """What the facts said last."""

    state: str = "starting"
    reason: str = ""
    heard_at: float = field(default_factory=time.monotonic)
    waits: dict[str, _Waiting] = field(default_factory=dict)


class Pulse:
    """Hears the facts of one relay or consumer. Thread-safe.

    A thread that tells no fact stands still: it tells one about once a second, but for as long as a
    send (POSTROOM_SEND_TIMEOUT_SECONDS), a call to MongoDB (15 s) or a checkpoint (20 s) holds it,
    and where it waits on purpose, for `pause_seconds` at most. `is_running` says whether the thread
    itself lives.
    """

    def __init__(
        self, who: str, *, hang_seconds: float, pause_seconds: float = 0.0, name: str = ""
    ) -> None:
        self.who = who
        self.name = name
        self.is_running: Callable[[], bool] = lambda: True
        self._hang_seconds = hang_seconds
        self._pause_seconds = pause_seconds
        self._lock = threading.Lock()
        self._noted = _Noted()

    def beat(self, **waits: tuple[float, str]) -> None:
        """Note that the thread goes on, for how long it has waited for what, and how it is told."""
        now = time.monotonic()
        with self._lock:
            self._noted.heard_at = now
            for what, (seconds, sentence) in waits.items():
                if seconds > 0:
                    self._noted.waits[what] = _Waiting(now - seconds, sentence)
                else:
                    self._noted.waits.pop(what, None)

    def enter(self, state: str, reason: str) -> None:
        """Note a state; what was waited for in the one before is over."""
        with self._lock:
            self._noted = _Noted(state, reason)

    def show(self, state: str, reason: str) -> None:
        """Note a state that another thread tells: it is no sign that this one goes on."""
        with self._lock:
            self._noted.state, self._noted.reason = state, reason

    @property
    def state(self) -> str:
        """The state that was told last."""
        with self._lock:
            return self._noted.state

    @property
    def not_ready(self) -> str | None:
        """Why it is not ready, as a sentence, or None: it does its work, or stands by to."""
        with self._lock:
            state, reason = self._noted.state, self._noted.reason
        if state in READY and self.is_running():
            return None
        return f"{self.who} is {state}" + (f": {reason}" if reason else "")

    @property
    def not_alive(self) -> str | None:
        """Why it is not alive, as a sentence, or None."""
        if not self.is_running() and self.state != State.STOPPED.value:
            return f"the thread of {self.who} has died"
        return next((each.sentence for each in self.hangs() if each.thread), None)

    def hangs(self) -> Sequence[Hang]:
        """Return what has stood still for longer than it may, now."""
        now = time.monotonic()
        with self._lock:
            state, heard_at = self._noted.state, self._noted.heard_at
            waits = dict(self._noted.waits)
        found = [
            Hang(who=self.who, what=what, sentence=each.sentence, seconds=now - each.since)
            for what, each in waits.items()
            if now - each.since > self._hang_seconds
        ]
        most = SILENCE_WHILE_OPENING if state == State.OPENING.value else SILENCE
        silence = now - heard_at
        if (
            state != State.STOPPED.value
            and silence > most * self._hang_seconds + self._pause_seconds
        ):
            sentence = f"the thread of {self.who} stands still while it is {state}"
            found.append(
                Hang(who=self.who, what="thread", sentence=sentence, seconds=silence, thread=True)
            )
        return found


def of_relay(
    partition: str, *, hang_seconds: float, pause_seconds: float = 0.0
) -> tuple[Pulse, Callable[[Fact], None]]:
    """Return the pulse of a relay, and what its observer tells."""
    # The facts of either kind are 0.2 MiB in a worker that hears none of them.
    from postroom.relay import facts as relay_facts

    who = f"the relay of outbox partition {partition!r}"
    pulse = Pulse(who, hang_seconds=hang_seconds, pause_seconds=pause_seconds, name=partition)

    def hear(fact: Fact) -> None:
        match fact:
            case relay_facts.StateEntered():
                pulse.enter(fact.state.value, fact.reason)
            case relay_facts.LoopTurned():
                pulse.beat(
                    read=(fact.reading_seconds, f"MongoDB does not answer a read of {who}"),
                    send=(fact.sending_seconds, f"Pulsar does not store what {who} has sent"),
                    checkpoint=(
                        fact.saving_seconds,
                        f"MongoDB does not write the checkpoint of {who}",
                    ),
                )
            case relay_facts.RowsPruned() | relay_facts.EventsFired():
                pass  # another thread's
            case relay_facts.RelayFact():
                pulse.beat()

    return pulse, hear


def of_consumer(
    subscription: str, *, hang_seconds: float, pause_seconds: float = 0.0
) -> tuple[Pulse, Callable[[Fact], None]]:
    """Return the pulse of a consumer, and what its observer tells."""
    from postroom.inbox import facts as inbox_facts

    who = f"the consumer of subscription {subscription!r}"
    pulse = Pulse(who, hang_seconds=hang_seconds, pause_seconds=pause_seconds, name=subscription)

    def hear(fact: Fact) -> None:
        match fact:
            case inbox_facts.ReadingChanged():
                pulse.show(fact.state, fact.reason)
            case inbox_facts.StateEntered():
                pulse.enter(fact.state, fact.reason)
            case inbox_facts.Load():
                # A commit is MongoDB's to end, and no handler's.
                what, other = ("commit", "handler") if fact.commits else ("handler", "commit")
                sentence = f"{fact.longest}, called by {who}, hangs"
                pulse.beat(**{what: (fact.longest_seconds, sentence), other: (0.0, "")})
            case inbox_facts.Troubled():
                pass  # another thread's
            case inbox_facts.ConsumerFact():
                pulse.beat()

    return pulse, hear
