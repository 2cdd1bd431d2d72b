"""The consumers' judge: what was applied and parked is compared with what was sent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.chaos.handling.notes import APPLIED, CHARTS, HOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymongo.database import Database

    from tests.chaos.sender import Sent

__all__ = ["Applied", "ConsumerVerdict", "judge_consumers"]

AUDITED = ("Counted", "Typed")


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What the handlers wrote: how often each event was applied, by handler, and each key's chart.

    `hot` is how often the one document was written that many events write.
    """

    times: Mapping[str, Mapping[str, int]]
    charts: Mapping[str, Sequence[int]]
    hot: int

    @classmethod
    def read(cls, database: Database[Any]) -> Applied:
        """Read it from the run's database."""
        times: dict[str, Counter[str]] = {
            "main": Counter(),
            "audit": Counter(),
            "broken": Counter(),
        }
        for row in database[APPLIED].find():
            times[row["handler"]][row["event"]] += 1
        charts = {row["_id"]: row["numbers"] for row in database[CHARTS].find()}
        hot = database[HOT].find_one({"_id": 0}) or {"count": 0}
        return cls(times=times, charts=charts, hot=hot["count"])


@dataclass(frozen=True, kw_only=True)
class ConsumerVerdict:
    """What became of the events; all but `good`, `poison` and `parked_twice` have to be nothing.

    An event that is delivered again before it was acknowledged leaves its letter there twice, under
    one id; redriven it does no harm. A batch is acknowledged as a whole: one event of it that is
    not done, and a worker that ends, repeat the letters of all others, as of a whole burst.
    """

    good: int
    poison: int
    not_applied: int
    applied_twice: int
    keys_out_of_order: int
    poison_applied: int
    poison_lost: int
    parked_twice: int
    good_parked: int
    backlog: int
    examples: Sequence[str] = ()

    @property
    def clean(self) -> bool:
        """Whether every event had its effect once, in order, or is a dead letter."""
        return self.good > 0 and not any(
            (
                self.not_applied,
                self.applied_twice,
                self.keys_out_of_order,
                self.poison_applied,
                self.poison_lost,
                self.good_parked,
                self.backlog,
            )
        )

    def __str__(self) -> str:
        told = "".join(f"\n  {example}" for example in self.examples)
        return (
            f"{self.good} good and {self.poison} poison events: {self.not_applied} not applied, "
            f"{self.applied_twice} applied twice, {self.keys_out_of_order} keys out of order, "
            f"{self.poison_applied} poison applied, {self.poison_lost} poison lost, "
            f"{self.parked_twice} parked twice, {self.good_parked} good parked, "
            f"backlog {self.backlog}{told}"
        )


def judge_consumers(
    sent: Sent, applied: Applied, parked: Sequence[str], *, backlog: int = 0
) -> ConsumerVerdict:
    """Compare what was sent with what the handlers wrote and what the dead-letter topics hold."""
    main, audit = applied.times["main"], applied.times["audit"]
    audited = {event for event, name in sent.good.items() if name in AUDITED}
    hot = sum(name == "Hot" for name in sent.good.values())
    missing = [*(sent.good.keys() - main.keys()), *(audited - audit.keys())]
    letters = Counter(parked)
    lost = list(sent.poison - letters.keys())
    twice = [event for event in sent.poison if letters[event] > 1]
    strangers = [event for event in letters if event not in sent.poison]
    swapped = [key for key, numbers in applied.charts.items() if list(numbers) != sorted(numbers)]
    return ConsumerVerdict(
        good=len(sent.good),
        poison=len(sent.poison),
        not_applied=len(missing),
        applied_twice=_repeats(main) + _repeats(audit) + max(0, applied.hot - hot),
        keys_out_of_order=len(swapped),
        poison_applied=len(applied.times["broken"]),
        poison_lost=len(lost),
        parked_twice=len(twice),
        good_parked=len(strangers),
        backlog=backlog,
        examples=[
            *(f"not applied: {event} {sent.good[event]}" for event in missing[:3]),
            *(f"out of order: {key}" for key in swapped[:3]),
            *(f"poison lost: {event}" for event in lost[:3]),
            *(f"parked twice: {event}" for event in twice[:3]),
            *(f"good parked: {event} {sent.good.get(event)}" for event in strangers[:3]),
        ],
    )


def _repeats(times: Mapping[str, int]) -> int:
    return sum(count - 1 for count in times.values())
