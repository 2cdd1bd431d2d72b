"""The fleet: what the running relays and consumers tell of themselves, by Celery's inspection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom.celery import fleet_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

__all__ = ["Fleet", "Member", "look"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One relay or consumer of a worker, and the numbers that it tells of itself."""

    worker: str
    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All that answered within a second, however many others there are."""

    relays: Sequence[Member]
    consumers: Sequence[Member]

    def relays_of(self, partition: str) -> list[Member]:
        """Return the relays of an outbox partition."""
        return [each for each in self.relays if each.told.get("partition") == partition]


def look(app: Celery) -> Fleet:
    """Ask all workers; blocks for about a second, and some more where Redis does not answer.

    Raises:
        Exception: whatever kombu raises where Redis is away.

    """
    answers = fleet_settings.stats(app)
    return Fleet(
        relays=_members(answers, "postroom-relay"), consumers=_members(answers, "postroom-consumer")
    )


def _members(answers: Mapping[str, Mapping[str, Any]], kind: str) -> list[Member]:
    found: list[Member] = []
    for worker, stats in sorted(answers.items()):
        told = stats.get(kind)
        found += [
            Member(worker=worker, told=each)
            for each in (told if isinstance(told, list) else ())
            if isinstance(each, Mapping)
        ]
    return found
