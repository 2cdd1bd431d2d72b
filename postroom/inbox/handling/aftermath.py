"""Aftermath: what a handler does after its commit, and for which events that is still due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom.deferred import require_done
from postroom.inbox.handling.call import Stage
from postroom.store.inbox_rows import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from postroom.events import Event
    from postroom.inbox.handling.call import Call
    from postroom.inbox.handling.handlers import Handler
    from postroom.store.inbox_rows import InboxRows, RowId

__all__ = ["Aftermath"]


class Aftermath:
    """What follows one job's commit; of the thread that runs it alone.

    An event's inbox row says that it is due until settle() has struck that out, so that another
    worker does what a killed one has left.
    """

    def __init__(
        self, handler: Handler, rows: InboxRows, *, row_id: Callable[[Event[Any]], RowId]
    ) -> None:
        self._handler = handler
        self._rows = rows
        self._row_id = row_id
        # By their ids as remembered.
        self._owing: dict[str, Event[Any]] = {}
        self._done: list[RowId] = []

    def owe(self, events: Mapping[str, Event[Any]]) -> None:
        """Note that it is due for events."""
        self._owing.update(events)

    def come(self, call: Call) -> None:
        """Do it for every event that it is due for.

        Raises:
            Exception: whatever it raised; it is due again when the event comes again.

        """
        if self._owing:
            events = [self._handler.prepared(each) for each in self._owing.values()]
            self._do(self._handler.argument(events), call, turn=None)
            self._rows.settle(map(self._row_id, self._owing.values()))

    def come_for(self, event: Event[Any], call: Call, *, turn: int) -> None:
        """Do it for one event of a group, if it is due; settle() follows for all of them."""
        if identity(event.id) in self._owing:
            self._do(self._handler.prepared(event), call, turn=turn)
            self._done.append(self._row_id(event))

    def settle(self) -> None:
        """Note for which events of a group it was done."""
        if self._done:
            self._rows.settle(self._done)

    def _do(self, argument: Any, call: Call, *, turn: int | None) -> None:
        if self._handler.after_commit is not None:
            call.enter(Stage.AFTER, turn=turn)
            who = f"after_commit of {self._handler.name}"
            require_done(self._handler.after_commit(argument), who=who)
