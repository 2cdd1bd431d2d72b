"""Standing: where a relay stands, moved one step at a time and told at each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from postroom.relay import facts
from postroom.relay.state import State, require_step

if TYPE_CHECKING:
    from postroom.observation import Observer

__all__ = ["Standing"]


class Standing:
    """The state of one relay; the relay's thread alone moves it."""

    def __init__(self, observer: Observer, *, partition: str, state: State = State.WAITING) -> None:
        self.state = state
        self._reason = ""
        self._observer = observer
        self._partition = partition

    def enter(self, state: State, reason: str = "") -> None:
        """Go into another state, or stay, for a reason worth showing if there is one.

        Who waits on without one waits for what it has waited for.

        Raises:
            RuntimeError: no relay goes from here to there; a mistake in the code.

        """
        require_step(self.state, state)
        if self.state is state is State.WAITING:
            reason = reason or self._reason
        self.state, self._reason = state, reason
        self._observer.tell(
            facts.StateEntered(
                partition=self._partition, state=state, reason=reason, at=datetime.now(UTC)
            )
        )
