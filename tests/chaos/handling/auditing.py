"""A second handler of events that another module handles too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom import Event, handles
from tests.chaos.handling.notes import APPLIED, AUDITORS, GROUP, database

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession


@handles("Counted", "Typed", name="chaos.audited", subscription=AUDITORS, group=GROUP)
def on_any(event: Event[Any], session: ClientSession) -> None:
    """Note that there was such an event."""
    entry = {"event": event.id, "handler": "audit"}
    database(session)[APPLIED].insert_one(entry, session=session)
