"""What earlier releases have stored and sent is gone on from; tests/releases has it as it was."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bson import json_util

from postroom import Outbox, wire
from tests.relays import relaying
from tests.site import ids
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site

FOLDER = Path(__file__).parents[1] / "releases"
RELEASES = sorted(FOLDER.glob("*.json"))
STORED = (wire.OUTBOX, wire.CHECKPOINTS, wire.QUARANTINE, wire.INBOX, wire.BEGUN)


def site_time(site: Site) -> Any:
    """Return MongoDB's cluster time."""
    return site.mongodb.admin.command("ping")["$clusterTime"]["clusterTime"]


def restored(site: Site, release: Path) -> list[str]:
    """Put a release's rows and messages into the site; return the ids of the messages.

    What is the own of services is that of these: topic, message id, token; and nothing is expired.
    """
    dump: dict[str, Any] = json_util.loads(release.read_text())
    site.subscribe("test").close()
    producer = site.pulsar.create_producer(site.topic)
    for message in dump["messages"]:
        sent = producer.send(message["data"].encode(), properties=message["properties"])
    producer.close()
    for row in dump[wire.INBOX]:
        row["handledAt"] = datetime.now(UTC)
    for name in STORED:
        if name != wire.CHECKPOINTS and dump[name]:
            site.database[name].insert_many(dump[name])
    with site.outbox.watch() as stream:
        stream.try_next()
        token = stream.resume_token
    for row in dump[wire.CHECKPOINTS]:
        lanes = [{"topic": site.topic, "messageId": sent.serialize()}]
        changed = {"lanes": lanes, "resumeToken": token, "clusterTime": site_time(site)}
        site.database[wire.CHECKPOINTS].insert_one({**row, **changed})
    return [message["properties"]["id"] for message in dump["messages"]]


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.stem)
def test_a_release_is_gone_on_from(site: Site, release: Path) -> None:
    """Nothing that it sent is sent again, nothing that it handled is handled again, all else is."""
    plain = site.subscribe()
    before = restored(site, release)
    quarantined = site.database[wire.QUARANTINE].count_documents({})
    epoch = site.checkpoint["epoch"]
    with relaying(site):
        (new,) = Outbox(site.database).publish(
            {"name": "MedicineAssigned", "data": {"medicineId": "new", "patientId": "p1"}}
        )
        messages = site.receive(plain, len(before) + 1)
    assert ids(messages) == [*before, new]
    assert int(messages[-1].properties()["position"]) > site.checkpoint["position"] - 1 > 0
    assert site.checkpoint["epoch"] == epoch + 1
    assert site.database[wire.QUARANTINE].count_documents({}) == quarantined
    site.consumer()
    charts = site.database["patientMedicines"]
    wait_until(lambda: charts.find_one({"_id": "p1"}), description="the new event is handled")
    chart = charts.find_one({"_id": "p1"}) or {}
    assert [entry["eventId"] for entry in chart["history"]] == [new]
    assert site.database[wire.INBOX].count_documents({}) == len(before) + 1


def test_there_is_a_fixture_of_each_release() -> None:
    """The first one, at least; each release adds its own."""
    assert [release.stem for release in RELEASES][:1] == ["0.1"]
