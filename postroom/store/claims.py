"""A claim: which relay took office last, where it meets its kind, and whether it moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom.topics import Topic
from postroom.wire import CheckpointField

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["Claim", "MeetingPlace", "claim_in"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeetingPlace:
    """Where relays exclude each other: a mutex topic, and the brokers that have it."""

    topic: Topic
    brokers: str

    def __str__(self) -> str:
        """Name both."""
        return f"{self.topic} at {self.brokers}"

    def to_row(self) -> dict[str, str]:
        """Return the stored form."""
        return {CheckpointField.TOPIC: self.topic, CheckpointField.BROKERS: self.brokers}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a checkpoint's row says of its owner.

    `mutex` is None of relays that do not say, and once the owner has left in order. While the owner
    lives, two looks some seconds apart see different claims: it moves `alive_at`, by MongoDB's
    clock, whether or not there is anything to relay.
    """

    owner: str | None
    epoch: int
    mutex: MeetingPlace | None = None
    alive_at: datetime | None = None
    updated_at: datetime | None = None


def claim_in(row: Mapping[str, Any]) -> Claim:
    """Read the claim in a checkpoint's row, whoever wrote that."""
    return Claim(
        owner=row.get(CheckpointField.OWNER),
        epoch=row.get(CheckpointField.EPOCH) or 0,
        mutex=_meeting_place(row.get(CheckpointField.MUTEX)),
        alive_at=row.get(CheckpointField.ALIVE_AT),
        updated_at=row.get(CheckpointField.UPDATED_AT),
    )


def _meeting_place(stored: object) -> MeetingPlace | None:
    if not isinstance(stored, dict):
        return None
    topic, brokers = (stored.get(n) for n in (CheckpointField.TOPIC, CheckpointField.BROKERS))
    if not isinstance(topic, str) or not isinstance(brokers, str):
        return None
    return MeetingPlace(topic=Topic(topic), brokers=brokers)
