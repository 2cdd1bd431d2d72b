"""The procedures of docs/continuity.md, word by word: a store is put back to what it was before."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from postroom import Outbox, wire
from tests.acceptance.test_operators_commands import values
from tests.commands import run
from tests.conftest import addresses
from tests.site import Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from click.testing import Result

    from devstack.brokers import Pulsar
    from tests.site import Worker

pytestmark = pytest.mark.pulsar


@contextlib.contextmanager
def relayed(site: Site) -> Iterator[Worker]:
    """Lend the aid-kit's relay, which knows the key of what it sends."""
    relay = site.relay()
    relay.wait_for("Relaying partition", seconds=90)
    yield relay
    assert relay.stop() == 0


def publish(site: Site, *medicines: str) -> list[str]:
    """Publish an event of one patient for each medicine."""
    return Outbox(site.database).publish(
        [
            {"name": "MedicineAssigned", "data": {"medicineId": each, "patientId": "p1"}}
            for each in medicines
        ]
    )


def handled(site: Site) -> list[str]:
    """Return the ids of the events that the handler has noted in the patient's chart, in order."""
    chart = site.database["patientMedicines"].find_one({"_id": "p1"}) or {}
    return [entry["eventId"] for entry in chart.get("history", [])]


def wait_for(site: Site, ids: Sequence[str]) -> None:
    """Wait until these events are handled, and no other."""
    wait_until(lambda: len(handled(site)) >= len(ids), description=f"{len(ids)} are handled")
    assert handled(site) == list(ids)


def backup(site: Site) -> dict[str, list[dict[str, Any]]]:
    """Return all that the database holds."""
    return {
        name: list(site.database[name].find()) for name in site.database.list_collection_names()
    }


def restore(site: Site, kept: dict[str, list[dict[str, Any]]]) -> None:
    """Put that back in the place of what is there, as mongorestore --drop does."""
    site.mongodb.drop_database(site.name)
    for name, rows in kept.items():
        if rows:
            site.database[name].insert_many(rows)


def test_mongodb_is_put_back_to_an_hour_ago(pulsar_site: Site) -> None:
    """Nothing is sent twice; with its cursor put back the subscription applies the hour again."""
    site = pulsar_site
    site.subscribe("test").close()
    consumer = site.consumer()
    with relayed(site):
        before = publish(site, "a", "b")
        wait_for(site, before)
        saved_position = 2
        wait_until(
            lambda: site.checkpoint["position"] == saved_position, description="a checkpoint"
        )
        kept = backup(site)
        back_to = int(time.time() * 1000)
        wait_until(lambda: time.time() * 1000 > back_to + 100, description="the hour begins")
        lost = publish(site, "c", "d")
        wait_for(site, [*before, *lost])
    assert consumer.stop() == 0
    restore(site, kept)
    assert handled(site) == before
    with relayed(site) as relay:
        (after,) = publish(site, "e")
        wait_until(lambda: len(site.stored()) >= 5, description="the new one is sent")
        assert site.stored() == [*before, *lost, after]
        site.admin("POST", f"/subscription/test/resetcursor/{back_to - 60_000}")
        site.consumer()
        wait_for(site, [*before, *lost, after])
        assert "It hangs" not in relay.text()
        assert site.database[wire.OUTBOX].count_documents({}) == 3


def test_a_topic_is_lost(pulsar_site: Site) -> None:
    """Paused, replayed onto the topic and resumed: nothing is missing, nothing applied twice."""
    site = pulsar_site
    site.subscribe("test").close()
    consumer = site.consumer()
    with relayed(site) as relay:
        first = publish(site, "a", "b")
        wait_for(site, first)
        assert consumer.stop() == 0
        second = publish(site, "c", "d")
        wait_until(lambda: len(site.stored()) == 4, description="they are sent")
        run(site, "outbox", "pause")
        relay.wait_for("is paused")
        site.admin("DELETE", "?force=true")
        site.subscribe("test").close()
        done = replayed(site)
        assert values(done) == [{"sent": 4, "left": 0}]
        run(site, "outbox", "resume")
        third = publish(site, "e")
        site.consumer()
        wait_for(site, [*first, *second, *third])
    assert site.stored() == [*first, *second, *third]


def test_pulsar_is_put_back_to_an_hour_ago(
    new_pulsar: Callable[..., Pulsar], environment: dict[str, str], tmp_path: Path
) -> None:
    """Paused, the lost hour replayed and resumed: nothing is missing, nothing applied twice."""
    broker = new_pulsar()
    with contextlib.closing(Site({**environment, **addresses(broker)}, tmp_path)) as site:
        site.subscribe("test").close()
        consumer = site.consumer()
        before = kept_in_a_backup(broker, site)
        with relayed(site) as relay:
            lost = publish(site, "c", "d")
            wait_for(site, [*before, *lost])
            put_back_to_backup(broker, site)
            # One that is back before the mutex is lost ends no term; a restore takes longer.
            relay.wait_for("the relay stands by", seconds=60)
            start_again(broker)
            relay.wait_for(f"{site.topic} was put back to an earlier time", seconds=60)
            run(site, "outbox", "pause")
            relay.wait_for("is paused")
            assert site.stored() == before
            assert [f"end of {site.topic}"] == put_back(site)
            done = replayed(site)
            assert values(done) == [{"sent": 4, "left": 0}]
            run(site, "outbox", "resume")
            after = publish(site, "e")
            wait_for(site, [*before, *lost, *after])
        assert site.stored() == [*before, *before, *lost, *after]
        assert put_back(site) == []
        assert consumer.stop() == 0


def test_pulsar_is_put_back_while_a_term_lasts(
    new_pulsar: Callable[..., Pulsar], environment: dict[str, str], tmp_path: Path
) -> None:
    """On a fast machine no term ends: the first event that is sent then tells of it."""
    broker = new_pulsar()
    with contextlib.closing(Site({**environment, **addresses(broker)}, tmp_path)) as site:
        site.subscribe("test").close()
        before = kept_in_a_backup(broker, site)
        with relayed(site) as relay:
            publish(site, "c", "d")
            wait_until(lambda: len(site.stored()) == 4, description="they are sent")
            put_back_to_backup(broker, site)
            start_again(broker)
            after = publish(site, "e")
            relay.wait_for(f"{site.topic} was put back to an earlier time", seconds=60)
            wait_until(lambda: site.stored() == [*before, *after], description="it goes on")


def kept_in_a_backup(broker: Pulsar, site: Site) -> list[str]:
    """Have two events sent, back the broker up and start it again; return their ids."""
    with relayed(site):
        sent = publish(site, "a", "b")
        wait_until(lambda: site.stored() == sent, description="they are sent")
    broker.stop()
    shutil.copytree(broker.folder, site.folder / "backup")
    start_again(broker)
    return sent


def put_back_to_backup(broker: Pulsar, site: Site) -> None:
    """Stop the broker and put what was backed up in the place of all that it has."""
    broker.stop()
    shutil.rmtree(broker.folder)
    shutil.copytree(site.folder / "backup", broker.folder)


def replayed(site: Site) -> Result:
    """Send what the outbox has onto the topic once more, with the keys that the relay gives."""
    words = ("--from", "1h", "--to", "2099-01-01T00:00", "--to-topic", site.topic)
    flags = ("--onto-original", "--yes", "--json")
    return run(site, "outbox", "replay", *words, *flags, key="patientId")


def put_back(site: Site) -> list[str]:
    """Return of what the doctor finds that it was put back to an earlier time."""
    found = values(run(site, "outbox", "doctor", "--json", code=None))
    return [each["what"] for each in found if "put back to an earlier time" in each["found"]]


def start_again(broker: Pulsar) -> None:
    """Start a broker that was stopped, and wait for it."""
    broker.start()
    broker.wait_ready()
