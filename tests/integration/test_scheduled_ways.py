"""Scheduled events beside the rest: a divided outbox, encryption, `outbox forget`, a restore."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from postroom import Outbox, PlanChange, wire
from postroom.partitioning import Partitioning
from tests.acceptance.test_dividing import command
from tests.relays import relaying
from tests.waiting import wait_until

if TYPE_CHECKING:
    import pytest

    from tests.site import Site

HOUR = timedelta(hours=1)
PAST = datetime(2020, 1, 1, tzinfo=UTC)
KEY = f"new:{base64.b64encode(bytes(range(32))).decode()}"


def reminder(number: int) -> dict[str, Any]:
    """Make an event; there are seven keys."""
    return {"name": "Reminded", "data": {"number": number, "patientId": str(number % 7)}}


def test_what_waits_outlives_that_the_outbox_is_divided(lite_site: Site) -> None:
    """Cancelled, moved and fired under its name and id, into the outbox partition of its key."""
    site, before = lite_site, Outbox(lite_site.database, key="patientId")
    ids = [
        before.publish(reminder(n), deliver_in=HOUR, schedule=f"r{n}", headers={"n": str(n)})[0]
        for n in range(20)
    ]
    done = command(site, "outbox partitions --to 4 --yes")
    assert done.returncode == 0, done.stderr
    outbox = Outbox(site.database, key="patientId", partitions=4)
    with outbox.scope() as tx:
        assert tx.cancel("r0") is PlanChange.DONE
        for n in range(1, 20):
            assert tx.reschedule(f"r{n}", deliver_at=PAST + n * HOUR)
    there = Partitioning(base="default", count=4, generation=2)
    with contextlib.ExitStack() as stack:
        for name in there.names:
            stack.enter_context(
                relaying(site, wait=False, partition=name, mutex_topic=f"{site.topic}-m{name}")
            )
        wait_until(lambda: site.outbox.count_documents({}) == 19, description="all that is due")
    rows = {str(row["_id"]): row for row in site.outbox.find()}
    assert sorted(rows) == sorted(ids[1:])
    for n, each in enumerate(ids[1:], 1):
        assert rows[each]["partitionKey"] == there.names[there.of_key(str(n % 7))]
        assert rows[each]["headers"] == {"n": str(n)}


def test_a_writer_that_knows_nothing_of_the_division_schedules_all_the_same(
    lite_site: Site,
) -> None:
    """What it schedules goes to the outbox partitions that there are when it is due."""
    site = lite_site
    old = Outbox(site.database)
    old.publish(reminder(1), deliver_in=HOUR, schedule="before")
    assert command(site, "outbox partitions --to 2 --yes").returncode == 0
    (event_id,) = old.publish(reminder(2), deliver_in=HOUR, schedule="after")
    with old.scope() as tx:
        assert tx.cancel("before")
    waiting = [str(row["_id"]) for row in site.database[wire.SCHEDULED].find()]
    assert waiting == [event_id]


def test_what_was_scheduled_is_encrypted_as_any_event(
    lite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker never sees its data."""
    monkeypatch.setitem(lite_site.environment, "POSTROOM_ENCRYPTION_KEYS", KEY)
    plain = lite_site.subscribe()
    with relaying(lite_site, encrypt="all"):
        Outbox(lite_site.database).publish(reminder(1), deliver_at=PAST)
        (message,) = lite_site.receive(plain, 1)
    assert message.properties()["postroom-envelope-key"] == "new"
    assert b"number" not in message.data()


def test_a_key_that_is_forgotten_has_nothing_scheduled(lite_site: Site) -> None:
    """What waits is cancelled by it, and says so; other keys' wait on."""
    outbox = Outbox(lite_site.database, key="patientId")
    outbox.publish([reminder(n) for n in range(14)], deliver_in=HOUR)
    outbox.publish(reminder(3), deliver_in=HOUR, schedule="named")
    done = command(lite_site, "outbox forget --key 3 --yes --json")
    assert '"scheduled": 3' in done.stdout.replace(":3", ": 3"), done.stdout + done.stderr
    with outbox.scope() as tx:
        assert tx.cancel("named") is PlanChange.UNKNOWN
    assert lite_site.database[wire.SCHEDULE_NAMES].find_one() is None
    left = [row["key"] for row in lite_site.database[wire.SCHEDULED].find()]
    assert len(left) == 12
    assert "3" not in left


def test_a_plan_that_is_restored_fires_nothing_twice(lite_site: Site) -> None:
    """What was sent, and waits once more since a copy was put back, says so and is left alone."""
    site, outbox = lite_site, Outbox(lite_site.database)
    plan, plain = site.database[wire.SCHEDULED], site.subscribe()
    ids = outbox.publish([reminder(n) for n in range(3)], deliver_at=PAST)
    copy = list(plan.find())
    with relaying(site):
        assert {m.properties()["id"] for m in site.receive(plain, 3)} == set(ids)
        plan.delete_many({})
        plan.insert_many(copy)
        outbox.publish(reminder(4), deliver_at=PAST)
        (fourth,) = site.receive(plain, 1)
        assert fourth.properties()["id"] not in ids
        wait_until(
            lambda: plan.count_documents({"refused": {"$ne": None}}) == 3,
            description="they are set aside",
        )
    assert sorted(site.stored()) == sorted([*ids, fourth.properties()["id"]])
