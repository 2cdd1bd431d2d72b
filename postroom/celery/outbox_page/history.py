"""The history of the last hour: how fast each outbox partition went, as positions tell it."""

from __future__ import annotations

import bisect
import collections
import itertools
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.relay.watching.view import PartitionView

__all__ = ["Curves", "History"]

HOUR = 3600.0
MOST_SAMPLES = 720
MOST_PARTITIONS = 256
POINTS = 60
# The rate now is that of about so many seconds: between two looks many checkpoints are written.
NOW_SECONDS = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """The last hour of an outbox partition, minute by minute, oldest first; None is not known.

    `rates` and `rate_now` are events relayed a second, `backlogs` the most rows that waited.
    """

    rate_now: float | None
    rates: Sequence[float | None]
    backlogs: Sequence[int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    at: float
    position: int
    waiting: int | None


class History:
    """Keeps samples of an hour for each outbox partition, of 256 at most. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: dict[str, collections.deque[_Sample]] = {}

    def note(self, views: Sequence[PartitionView], *, now: float | None = None) -> None:
        """Take note of what was seen now, in monotonic seconds."""
        at = time.monotonic() if now is None else now
        with self._lock:
            for view in views[:MOST_PARTITIONS]:
                kept = self._samples.setdefault(
                    view.partition, collections.deque(maxlen=MOST_SAMPLES)
                )
                kept.append(_Sample(at=at, position=view.position or 0, waiting=view.waiting))
            gone = [p for p, kept in self._samples.items() if kept[-1].at < at - HOUR]
            for partition in gone:
                del self._samples[partition]

    def of(self, partition: str, *, now: float | None = None) -> Curves:
        """Return the curves of an outbox partition."""
        at = time.monotonic() if now is None else now
        with self._lock:
            samples = list(self._samples.get(partition, ()))
        width = HOUR / POINTS
        edges = [at - HOUR + width * index for index in range(POINTS + 1)]
        return Curves(
            rate_now=_rate(samples, at - NOW_SECONDS, at),
            rates=[_rate(samples, a, b) for a, b in itertools.pairwise(edges)],
            backlogs=[_most(samples, a, b) for a, b in itertools.pairwise(edges)],
        )


def _rate(samples: Sequence[_Sample], begin: float, end: float) -> float | None:
    """Return the events a second from the last sample before `begin` to the last before `end`."""
    last = _before(samples, end)
    first = max(_before(samples, begin), 0)
    if last <= first or samples[last].at < begin:
        return None
    seconds = samples[last].at - samples[first].at
    return max(0, samples[last].position - samples[first].position) / seconds


def _most(samples: Sequence[_Sample], begin: float, end: float) -> int | None:
    within = samples[_before(samples, begin) + 1 : _before(samples, end) + 1]
    return max((s.waiting for s in within if s.waiting is not None), default=None)


def _before(samples: Sequence[_Sample], at: float) -> int:
    return bisect.bisect_right(samples, at, key=lambda sample: sample.at) - 1
