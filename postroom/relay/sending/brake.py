"""The brake: many poison rows in a row stop the relay with a question."""

from __future__ import annotations

__all__ = ["Brake"]


class Brake:
    """Counts how many more rows were set aside than relayed lately; the term's thread alone.

    Each poison row raises `level`, each good one lowers it, and at `limit` the relay stops instead
    of emptying the outbox into quarantine; 0 is no limit. The checkpoint keeps the level, so that
    neither a restart nor another relay begins to count anew.
    """

    def __init__(self, *, limit: int) -> None:
        self.level = 0
        self.limit = limit

    def lower(self, rows: int) -> None:
        """Count rows that were good."""
        self.level = max(0, self.level - rows)

    def has_room(self) -> bool:
        """Count a poison row, unless that is one too many."""
        if self.limit and self.level >= self.limit:
            return False
        self.level += 1
        return True
