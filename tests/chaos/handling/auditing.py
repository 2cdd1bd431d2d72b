"""A second handler of events that another module handles too."""

from __future__ import annotations

from typing import Any

from pymongo import InsertOne

from postroom import Event, Write, handles
from tests.chaos.handling.notes import APPLIED, AUDITORS, GROUP


@handles("Counted", "Typed", name="chaos.audited", subscription=AUDITORS, group=GROUP)
def on_any(event: Event[Any]) -> Write:
    """Note that there was such an event."""
    return Write(APPLIED, InsertOne({"event": event.id, "handler": "audit"}))
