"""Marks: up to where the checkpoint speaks for each topic, and what its next save adds to that."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.store.values import Mark
    from postroom.topics import Topic

__all__ = ["Marks"]


class Marks:
    """Used by the term's thread alone.

    A mark ahead of the checkpoint's token would hide from the next term what it must leave out. So
    what is stored is kept apart until a token covers it, and again until that is saved.
    """

    def __init__(self) -> None:
        self._saved: dict[Topic, Mark | None] = {}
        self._covered: dict[Topic, Mark] = {}
        self._uncovered: dict[Topic, Mark] = {}

    def begin(self, marks: Mapping[Topic, Mark | None]) -> None:
        """Take over what the checkpoint says."""
        self._saved = dict(marks)

    def of(self, topic: Topic) -> Mark | None:
        """Return what the checkpoint says of a topic."""
        return self._saved.get(topic)

    def is_declared(self, topic: Topic) -> bool:
        """Whether the checkpoint names the topic, so that its tail can be found."""
        return topic in self._saved

    def declare(self, topic: Topic, mark: Mark | None) -> Mapping[Topic, Mark | None]:
        """Name a topic, and return all that the checkpoint is to say now."""
        self._saved[topic] = mark
        return self._saved

    def move(self, marks: Mapping[Topic, Mark]) -> None:
        """Note what is stored where."""
        self._uncovered.update(marks)

    def cover(self) -> None:
        """Note that a token covers all that is stored so far."""
        self._covered.update(self._uncovered)
        self._uncovered.clear()

    def take(self) -> dict[Topic, Mark]:
        """Return what is covered and not yet saved; it is being saved from now on."""
        taken, self._covered = self._covered, {}
        return taken

    def with_taken(self, taken: Mapping[Topic, Mark]) -> dict[Topic, Mark | None]:
        """Return all that the checkpoint is to say with what was taken."""
        return {**self._saved, **taken}

    def saved(self, taken: Mapping[Topic, Mark]) -> None:
        """Note that what was taken is in the checkpoint."""
        self._saved.update(taken)
