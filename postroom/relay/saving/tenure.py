"""Tenure: whether this relay's term is still the newest, and since when that is known."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.store.checkpoints import CheckpointStore

__all__ = ["Tenure"]

# A relay that has not heard of its own term for this long asks before it sends: it may have been
# frozen, and the broker takes five seconds to give its mutex away.
TRUST_SECONDS = 3.0


class Tenure:
    """Used by the term's thread alone."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._known = 0.0

    def renew(self, asked_at: float | None = None) -> None:
        """Note that whose term it is was settled, by MongoDB or by a fence, just now or then.

        What a server says is as old as the question.
        """
        self._known = time.monotonic() if asked_at is None else asked_at

    def require(self) -> None:
        """Make sure that this term is still the newest, by asking where that is long ago.

        Raises:
            Superseded: it is not.

        """
        if time.monotonic() - self._known > TRUST_SECONDS:
            self.confirm()

    def confirm(self) -> None:
        """Ask whether this term is still the newest.

        Raises:
            Superseded: it is not.

        """
        began = time.monotonic()
        self._store.confirm()
        self.renew(began)
