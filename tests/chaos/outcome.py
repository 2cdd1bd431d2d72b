"""Outcome: what one run has shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.chaos.fleet import Fleet
    from tests.chaos.torment import Torment

__all__ = ["Outcome"]


class _Verdict(Protocol):
    @property
    def clean(self) -> bool: ...


V = TypeVar("V", bound=_Verdict)


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[V]):
    """The verdict, what was done, what stood still for too long, and which workers ended."""

    verdict: V
    actions: Mapping[str, int]
    standstills: Sequence[str]
    deaths: Sequence[str]
    longest: Mapping[str, float]

    @classmethod
    def of(cls, verdict: V, torment: Torment, fleet: Fleet) -> Outcome[V]:
        """Gather what a run has shown."""
        return cls(
            verdict=verdict,
            actions=torment.actions,
            standstills=torment.standstills,
            deaths=fleet.deaths,
            longest=torment.longest,
        )

    @property
    def clean(self) -> bool:
        """Whether the verdict is, nothing stood still and no worker ended by itself."""
        return self.verdict.clean and not self.standstills and not self.deaths

    def __str__(self) -> str:
        done = ", ".join(f"{n} {action}" for action, n in sorted(self.actions.items()))
        slowest = sorted(self.longest.items(), key=lambda item: -item[1])[:5]
        return "\n".join(
            [
                f"{done}:",
                str(self.verdict),
                f"{len(self.standstills)} standstills, {len(self.deaths)} workers that ended",
                *(f"  {text}" for text in (*self.standstills, *self.deaths)),
                "stood longest: " + ", ".join(f"{s:.0f} s after {name}" for name, s in slowest),
            ]
        )
