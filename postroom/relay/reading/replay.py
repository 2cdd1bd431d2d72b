"""The replay: what a term's stream shows that an earlier term may have seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bson import Timestamp

    from postroom.store.checkpoints import Point

__all__ = ["Replay"]


class Replay:
    """Over once the stream has passed the time at which all was fenced; the term's thread alone.

    Before the stream comes the scan, `is_scanning`, where there is one.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.is_scanning = False
        self._until: Timestamp | None = None
        self._has_set_aside = False

    def begin(self, now: Timestamp, *, has_set_aside: bool) -> None:
        """Note the server's time, once all is fenced, and whether rows are in quarantine."""
        self._until = now
        self._has_set_aside = has_set_aside

    @property
    def is_worth_noting(self) -> bool:
        """Whether a row that is sent now may be in quarantine."""
        return self._has_set_aside and not self.is_over

    def covers(self, point: Point | None) -> bool:
        """Say whether a point is behind all that an earlier term can have seen."""
        reached = None if point is None else point.cluster_time
        return reached is not None and self._until is not None and reached >= self._until

    def ends_with(self, point: Point | None) -> bool:
        """Note up to where rows have been sent, and say whether the replay has ended with that."""
        if self.is_over:
            return False
        self.is_over = self.covers(point)
        return self.is_over
