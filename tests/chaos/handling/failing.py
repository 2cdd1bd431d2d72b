"""Handlers that never succeed: each of their events has to become a dead letter, once."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from postroom import Event, Reject, handles
from tests.chaos.handling.notes import GROUP, OWN, note

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

CRASH_CODE = 7


@handles("Rejected", name="chaos.rejected", subscription=OWN, group=GROUP)
def on_rejected(event: Event[Any]) -> None:
    """Give up at once."""
    raise Reject("not wanted")


@handles(
    "Broken",
    name="chaos.broken",
    subscription=OWN,
    group=GROUP,
    max_attempts=2,
    backoff_seconds=0.2,
)
def on_broken(event: Event[Any], session: ClientSession) -> None:
    """Write, then fail."""
    note(event, session, "broken", event.data["number"])
    raise ValueError("broken")


@handles("Crash", name="chaos.crash", subscription=OWN, group=GROUP, max_attempts=2)
def on_crash(event: Event[Any]) -> None:
    """End the process, as a crash in a library would, when others are at work beside it."""
    threading.Event().wait(0.3)
    os._exit(CRASH_CODE)
