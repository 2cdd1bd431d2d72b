"""Intake: which handlers a delivery is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom import errors
from postroom.inbox.scheduling.elsewhere import ELSEWHERE

if TYPE_CHECKING:
    from postroom.envelope import Envelopes
    from postroom.inbox.handling.handlers import Handler, Registry
    from postroom.inbox.scheduling.elsewhere import Elsewhere
    from postroom.inbox.scheduling.held import Held

__all__ = ["Intake"]


class Intake:
    """Opens deliveries of one subscription, and finds their handlers. The dispatcher's own.

    What may have been held by a worker that was ended is noted, up to the first `noted` deliveries.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        subscription: str,
        envelopes: Envelopes,
        elsewhere: Elsewhere,
        strict: bool,
        noted: int,
    ) -> None:
        self._registry = registry
        self._envelopes = envelopes
        self.elsewhere = elsewhere
        self._subscription = subscription
        self._strict = strict
        self._noted_left = noted

    def open(self, held: Held) -> bool:
        """Give a delivery its event and handlers, and say whether it has any.

        What no handler here wants and one of another worker does has ELSEWHERE as its handler.

        Raises:
            InvalidEvent: nobody can handle it; the message says why.

        """
        held.noted = self._noted_left > 0 and held.delivery.may_have_been_held
        self._noted_left -= held.noted
        try:
            held.event = held.delivery.event(self._envelopes)
        except errors.InvalidEvent:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is in it must not hold up the others
            kind = type(error).__name__
            raise errors.InvalidEvent(f"The event cannot be read ({kind})") from None
        held.handlers = self._handlers_of(held.delivery.only_for, held.event.name)
        if not held.handlers and self.elsewhere.may_want(held.event.name):
            held.handlers = [ELSEWHERE]
        held.waiting_for = {handler.name for handler in held.handlers}
        return bool(held.handlers)

    def _handlers_of(self, only_for: str | None, name: str) -> list[Handler]:
        wanted = self._registry.for_event(name, self._subscription)
        if only_for:
            wanted = [handler for handler in wanted if handler.name == only_for]
            if not wanted:
                raise errors.InvalidEvent(f"There is no handler {only_for[:200]!r} here")
        if not wanted and self._strict:
            raise errors.InvalidEvent(f"No handler wants events called {name[:100]!r}")
        return wanted
