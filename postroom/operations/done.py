"""Done: how far an act on many things is, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Done"]

MOST_REFUSED_TOLD = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How many of those `asked` were `done`, and how many `left` as they are.

    `asked` is None where that is not known beforehand. `refused` says why for single ones.
    """

    asked: int | None = None
    done: int = 0
    left: int = 0
    refused: Sequence[str] = ()

    def and_more(self, *, done: int = 0, left: int = 0) -> Done:
        """Return it with so many more done, and left as they are."""
        return replace(self, done=self.done + done, left=self.left + left)

    def and_refused(self, name: str, why: Exception) -> Done:
        """Return it with one more left, and why; of very many the first ones are told."""
        refused = [*self.refused, f"{name}: {why}"][:MOST_REFUSED_TOLD]
        return replace(self.and_more(left=1), refused=refused)
