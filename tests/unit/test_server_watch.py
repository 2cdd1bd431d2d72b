"""What our own client sees of its servers tells an outage from a handler's own trouble."""

from __future__ import annotations

import time

import pytest
from bson import ObjectId
from pymongo import monitoring
from pymongo.hello import Hello
from pymongo.server_description import ServerDescription

from postroom.store.server_watch import ServerWatch

ADDRESS = ("127.0.0.1", 1)
MEMBER = {"ok": 1, "setName": "rs0", "maxWireVersion": 17, "minWireVersion": 0}
STATES = {
    "primary": ServerDescription(ADDRESS, Hello({**MEMBER, "isWritablePrimary": True})),
    "secondary": ServerDescription(ADDRESS, Hello({**MEMBER, "secondary": True})),
    "unknown": ServerDescription(ADDRESS),
}


@pytest.mark.parametrize(
    ("before", "now", "lost"),
    [
        ("primary", "unknown", True),
        ("secondary", "unknown", True),
        ("primary", "secondary", True),
        ("secondary", "primary", False),
        ("unknown", "primary", False),
        ("primary", "primary", False),
    ],
)
def test_a_server_is_lost_that_answers_no_more_or_is_no_primary_any_more(
    before: str, now: str, *, lost: bool
) -> None:
    """A primary that tells itself that it has stepped down refuses calls, and is never doubted."""
    watch, began = ServerWatch(), time.monotonic()
    event = monitoring.ServerDescriptionChangedEvent(
        STATES[before], STATES[now], ADDRESS, ObjectId()
    )
    watch.description_changed(event)
    assert watch.is_doubted(since=began) is lost
