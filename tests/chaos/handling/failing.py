"""Handlers that never succeed: each of their events has to become a dead letter, once."""

from __future__ import annotations

import os
import threading
from typing import Any

from pymongo import InsertOne

from postroom import Event, Reject, Write, handles
from tests.chaos.handling.notes import APPLIED, GROUP, OWN, noted

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
def on_broken(event: Event[Any]) -> list[Write]:
    """Raise, or return writes of which the last one is refused."""
    if event.data["number"] % 2:
        raise ValueError("broken")
    writes = noted(event, "broken", event.data["number"])
    return [*writes, Write(APPLIED, *[InsertOne({"_id": event.id})] * 2)]


@handles("Crash", name="chaos.crash", subscription=OWN, group=GROUP, max_attempts=2)
def on_crash(event: Event[Any]) -> None:
    """End the process, as a crash in a library would, when others are at work beside it."""
    threading.Event().wait(0.3)
    os._exit(CRASH_CODE)
