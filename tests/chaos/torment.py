"""Torment: rounds of disturbances, each followed by a look whether everything goes on in time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Disturbance", "Progress", "Torment"]

# Beside what a cause takes: a worker's start on a busy machine, a scan, a full checkpoint.
PATIENCE_SECONDS = 15.0
GIVEN_UP_AFTER = 4.0
LOOK_SECONDS = 0.5
MOST_IN_A_ROUND = 5


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """Something that is done to the system.

    `act` returns when the system is whole again, or when what it has ended is being started;
    nothing may stand still for longer than `seconds` from then on.
    """

    name: str
    act: Callable[[], None]
    seconds: float
    weight: int = 1


class Progress(Protocol):
    """What is under way."""

    def mark(self) -> int:
        """Return a mark behind everything that has been written so far."""

    def missing(self, mark: int) -> Mapping[str, int]:
        """Return how much of that is under way, for each thing that may stand still alone."""


class Torment:
    """Disturbs, in rounds, for a time; `standstills` says what stood still for too long."""

    def __init__(
        self,
        *,
        dice: random.Random,
        disturbances: Sequence[Disturbance],
        progress: Progress,
        look_after: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self.actions: Counter[str] = Counter()
        self.standstills: list[str] = []
        self.longest: dict[str, float] = {}
        self._dice, self._disturbances, self._progress = dice, disturbances, progress
        self._look_after, self._say = look_after, say

    def run(self, seconds: float) -> None:
        """Disturb for a time, and see in each pause that all of it goes on."""
        begin = time.monotonic()
        weights = [disturbance.weight for disturbance in self._disturbances]
        while (gone := time.monotonic() - begin) < seconds:
            causes = self._dice.choices(
                self._disturbances, weights, k=self._dice.randint(1, MOST_IN_A_ROUND)
            )
            for cause in causes:
                threading.Event().wait(self._dice.uniform(0.2, 2.0))
                self._say(f"{time.monotonic() - begin:6.1f} s: {cause.name}")
                cause.act()
                self.actions[cause.name] += 1
            self.rest(causes)
            self._say(f"{gone:6.1f} s to {time.monotonic() - begin:.1f} s: a round")

    def rest(self, causes: Sequence[Disturbance]) -> None:
        """Wait until all that was written until now has arrived, or stands still for too long."""
        names = " + ".join(sorted({cause.name for cause in causes})) or "nothing"
        bound = PATIENCE_SECONDS + max((cause.seconds for cause in causes), default=0.0)
        mark = self._progress.mark()
        begin = time.monotonic()
        before: Mapping[str, int] = {}
        since: dict[str, float] = {}
        told: set[str] = set()
        while now := self._progress.missing(mark):
            at = time.monotonic()
            for thing, count in now.items():
                if before.get(thing) != count:
                    since[thing] = at
                stood = at - since[thing]
                self.longest[names] = max(self.longest.get(names, 0.0), stood)
                if stood > bound and thing not in told:
                    told.add(thing)
                    self._stands_still(thing, count, stood, names)
            if at - max(since[thing] for thing in now) > GIVEN_UP_AFTER * bound:
                return
            before = now
            self._look_after()
            threading.Event().wait(LOOK_SECONDS)
        if told:
            self._say(f"It went on after {time.monotonic() - begin:.1f} s")

    def _stands_still(self, thing: str, count: int, seconds: float, names: str) -> None:
        clock = time.strftime("%H:%M:%S")
        found = f"{thing} with {count} to go stood still for {seconds:.0f} s after {names}"
        self.standstills.append(f"{found} ({clock})")
        self._say(f"STANDSTILL at {clock}: {found}")
