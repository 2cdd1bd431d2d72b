"""A message in the words of CloudEvents: docs/cloudevents.md is this."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId

from postroom import ConfigurationError, InvalidEvent, settings
from postroom.cloud_events import CloudEvents
from postroom.routing import Routing
from postroom.store import letter
from postroom.store.partitioner import Partitioner
from postroom.store.row_writer import RowWriter


def written(*, cloud: bool = True, **row: Any) -> letter.Letter:
    """Return the letter of a row."""
    routing = Routing(
        default="a/b/c",
        topics={},
        key=None,
        cloud_events=CloudEvents.of(None, "aid kit") if cloud else None,
    )
    given = {
        "_id": "1",
        "occurredAt": datetime(2026, 1, 2, 3, 4, 5, 6000, UTC).replace(tzinfo=None),
        "data": {"name": "Counted", "data": {}},
        **row,
    }
    return letter.write(given, routing, 1 << 20)


def test_attributes_are_properties_and_the_payload_is_as_ever() -> None:
    """All required ones, time and key where there are some; content-type has no prefix."""
    found = written(key="k")
    assert dict(found.headers) == {
        "ce_specversion": "1.0",
        "ce_id": "1",
        "ce_source": "/aid%20kit",
        "ce_type": "Counted",
        "ce_time": "2026-01-02T03:04:05.006Z",
        "ce_partitionkey": "k",
        "content-type": "application/json",
    }
    assert found.payload == written(cloud=False).payload
    assert written(cloud=False).headers == {}
    assert "ce_time" not in written(occurredAt=None).headers
    assert "ce_partitionkey" not in written().headers


def test_own_headers_stand_before_attributes_but_for_what_identifies() -> None:
    """A subject or source of the event's own is kept; nobody gives it another id or position."""
    headers = {"ce_subject": "s", "ce_source": "/own", "ce_id": "2", "ce_sequence": "9", "x": "y"}
    found = written(headers=headers).headers
    assert found.items() >= {"ce_subject": "s", "ce_source": "/own", "ce_id": "1", "x": "y"}.items()
    assert "ce_sequence" not in found


def test_the_writer_counts_what_the_relay_will_add() -> None:
    """An event that fits without them and not with them is refused when it is published."""
    event = {"name": "Counted", "data": {"text": "x" * 600}}
    plain = RowWriter(partitioner=Partitioner("p", 1), key=None, max_bytes=1000)
    plain.row(event, row_id=ObjectId(), headers=None)
    cloud = CloudEvents.of(None, "aid-kit")
    dressed = RowWriter(
        partitioner=Partitioner("p", 1), key=None, max_bytes=1000, cloud_events=cloud
    )
    with pytest.raises(InvalidEvent, match="could never be sent"):
        dressed.row(event, row_id=ObjectId(), headers=None)


@pytest.mark.parametrize("source", ["a b", "ä", "x" * 501, "a\nb"])
def test_a_source_that_is_none_is_refused(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sentence that names the setting."""
    monkeypatch.setenv("POSTROOM_CLOUDEVENTS_SOURCE", source)
    with pytest.raises(ConfigurationError, match="POSTROOM_CLOUDEVENTS_SOURCE is"):
        settings.load()
