"""Health: whether a worker is alive and ready, by the pulses of its threads and nothing else.

Redis, MongoDB and Pulsar may all be away: a worker that is started anew would find them no sooner.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.telemetry.pulse import Hang, Pulse

__all__ = ["Answer", "Health"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a probe is told: yes or no, and a line for each thing that it hangs on."""

    well: bool
    lines: Sequence[str]


class Health:
    """The pulses of one worker's relays and consumers. Thread-safe: they are replaced as a whole.

    A worker that has none, one of the application's own, is ready once ready() was called.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.pulses: Sequence[Pulse] = ()
        self._is_ready = threading.Event()

    def follow(self, pulse: Pulse) -> None:
        """Go by one more."""
        with self._lock:
            self.pulses = (*self.pulses, pulse)

    def forget(self, name: str) -> None:
        """Go no more by those of a relay or consumer of this name."""
        with self._lock:
            self.pulses = tuple(each for each in self.pulses if each.name != name)

    def ready(self) -> None:
        """Note that a worker without relays and consumers takes tasks; it stays so."""
        self._is_ready.set()

    def hangs(self) -> list[Hang]:
        """Return all that has stood still for longer than it may."""
        return [hang for pulse in self.pulses for hang in pulse.hangs()]

    def liveness(self) -> Answer:
        """Say whether every thread goes on, and what hangs beside."""
        dead = [found for pulse in self.pulses if (found := pulse.not_alive) is not None]
        beside = [
            f"{hang.sentence}, for {hang.seconds:.0f} s" for hang in self.hangs() if not hang.thread
        ]
        well = [f"{pulse.who} is {pulse.state}" for pulse in self.pulses]
        return Answer(well=not dead, lines=[*dead, *beside, *([] if dead else well)])

    def readiness(self) -> Answer:
        """Say whether every relay relays or stands by, and every consumer consumes."""
        if not self.pulses:
            is_ready = self._is_ready.is_set()
            return Answer(well=is_ready, lines=[] if is_ready else ["the worker is starting"])
        why = [found for pulse in self.pulses if (found := pulse.not_ready) is not None]
        well = [f"{pulse.who} is {pulse.state}" for pulse in self.pulses]
        return Answer(well=not why, lines=why or well)
