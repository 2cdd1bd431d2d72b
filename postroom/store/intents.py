"""Intents: what is about to be handed to a topic, as the checkpoint has it before that happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom.store.values import Position
from postroom.topics import Topic
from postroom.wire import CheckpointField

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Intent", "intent_to_row", "intents_from"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """Rows that were to be handed to a topic in this order, by their ids as messages bear them.

    `position` is that of the last one. None says that the topic has refused them: it was found to
    lack them although it had later ones.
    """

    topic: Topic
    ids: tuple[str, ...]
    position: Position | None = None


def intent_to_row(intent: Intent) -> dict[str, Any]:
    """Return what is stored of an intent in the checkpoint's row."""
    return {
        CheckpointField.TOPIC: intent.topic,
        CheckpointField.IDS: list(intent.ids),
        CheckpointField.POSITION: intent.position,
    }


def intents_from(noted: Mapping[str, Mapping[str, Any]] | None) -> dict[int, Intent]:
    """Read all intents of a row by their numbers, in the order of these."""
    found = {int(number): _intent(row) for number, row in (noted or {}).items()}
    return dict(sorted(found.items()))


def _intent(row: Mapping[str, Any]) -> Intent:
    position = row[CheckpointField.POSITION]
    return Intent(
        topic=Topic(row[CheckpointField.TOPIC]),
        ids=tuple(map(str, row[CheckpointField.IDS])),
        position=None if position is None else Position(int(position)),
    )
