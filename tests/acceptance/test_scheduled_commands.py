"""`celery -A tasks outbox scheduled …`: what waits is listed, shown, cancelled, moved and fired."""

from __future__ import annotations

import re
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from bson import ObjectId

from postroom import Outbox, wire
from tests.acceptance.test_operators_commands import values
from tests.commands import run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site

SCHEDULED = ("outbox", "scheduled")
AT = datetime(2040, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def planned(lite_site: Site) -> list[str]:
    """Schedule three events, an hour apart, the first two under names; return their ids."""
    outbox = Outbox(lite_site.database, key="patientId")
    return [
        outbox.publish(
            {"name": name, "data": {"patientId": patient, "secret": "mumps"}},
            deliver_at=AT + n * HOUR,
            schedule=schedule,
        )[0]
        for n, (name, patient, schedule) in enumerate(
            [("Reminded", "anna", "first"), ("Reminded", "bert", "second"), ("Told", "anna", None)]
        )
    ]


def plan(site: Site) -> dict[str, datetime]:
    """Return when each event is due that waits."""
    return {str(row["_id"]): row["dueAt"] for row in site.database[wire.SCHEDULED].find()}


def test_nothing_scheduled_is_said_so(lite_site: Site) -> None:
    """By each command, in an outbox that never knew scheduled events, and nothing is made there."""
    assert "0 scheduled events" in run(lite_site, *SCHEDULED, "list").stdout
    assert run(lite_site, *SCHEDULED, "list", "--json").stdout == ""
    assert run(lite_site, *SCHEDULED, "cancel", "--all", "--yes").stdout == "0 cancelled.\n"
    assert run(lite_site, *SCHEDULED, "fire", "--all").stdout == "0 fired.\n"
    done = run(lite_site, *SCHEDULED, "reschedule", "--all", "--at", "2h")
    assert done.stdout == "0 rescheduled.\n"
    assert wire.SCHEDULED not in lite_site.database.list_collection_names()


def test_they_are_listed_in_the_order_in_which_they_are_due(
    lite_site: Site, planned: list[str]
) -> None:
    """Page by page, with names and without data, as a table and as JSON."""
    found = values(run(lite_site, *SCHEDULED, "list", "--json"))
    assert [each["row_id"] for each in found] == planned
    assert [each["schedule"] for each in found] == ["first", "second", None]
    page = values(run(lite_site, *SCHEDULED, "list", "--json", "--skip", "1", "--limit", "1"))
    assert [each["row_id"] for each in page] == planned[1:2]
    shown = run(lite_site, *SCHEDULED, "list", "--limit", "2").stdout
    assert "2 of 3 scheduled events" in shown
    assert planned[0] in shown
    assert "mumps" not in shown + str(found)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--schedule", "second"], [1]),
        (["--name", "Reminded"], [0, 1]),
        (["--key", "anna"], [0, 2]),
        (["--from", "2040-05-01T13:00:00Z"], [1, 2]),
        (["--to", "2040-05-01T13:00:00Z"], [0]),
        (["--name", "Told", "--key", "bert"], []),
        (["--reason", "."], []),
        (["--topic", "persistent://public/default/t"], []),
        (["--partition", "billing"], []),
    ],
)
def test_filters_are_those_of_the_quarantine(
    lite_site: Site, planned: list[str], given: list[str], expected: list[int]
) -> None:
    """For listing as for acting, where a dry run says how many and changes nothing."""
    before = plan(lite_site)
    found = values(run(lite_site, *SCHEDULED, "list", "--json", *given))
    assert [each["row_id"] for each in found] == [planned[n] for n in expected]
    if "--partition" not in given:
        done = run(lite_site, *SCHEDULED, "cancel", "--dry-run", "--json", *given)
        assert values(done) == [{"would_be_cancelled": len(expected)}]
    assert plan(lite_site) == before


def test_one_is_shown_by_its_id(lite_site: Site, planned: list[str]) -> None:
    """As it waits; one that is not there is an error, and so is what is no id."""
    shown = run(lite_site, *SCHEDULED, "show", planned[0]).stdout
    assert "first" in shown
    assert "2040-05-01" in shown
    (found,) = values(run(lite_site, *SCHEDULED, "show", planned[0], "--json"))
    assert (found["name"], found["outbox"], found["fired_at"]) == ("Reminded", "default", None)
    for unknown in (str(ObjectId()), "nonsense"):
        done = run(lite_site, *SCHEDULED, "show", unknown, code=1)
        assert f"Not scheduled: {unknown}" in done.stderr


def test_some_are_cancelled_and_the_others_stay(lite_site: Site, planned: list[str]) -> None:
    """It asks first, nobody's answer is no, and what was done is noted."""
    run(lite_site, *SCHEDULED, "cancel", "--schedule", "first", code=1)
    assert len(plan(lite_site)) == 3
    done = run(lite_site, *SCHEDULED, "cancel", "--schedule", "first", text="y\n")
    assert done.stdout == "1 cancelled.\n"
    done = run(lite_site, *SCHEDULED, "cancel", "--id", planned[1], "--yes", "--json")
    assert values(done) == [{"cancelled": 1, "left": 0}]
    assert set(plan(lite_site)) == {planned[2]}
    noted = values(run(lite_site, "outbox", "actions", "--json"))
    assert [each["what"] for each in noted].count("scheduled cancel") == 2


def test_they_are_moved_and_fired(lite_site: Site, planned: list[str]) -> None:
    """To a time, to so long from now, and to MongoDB's now."""
    at = "2041-01-01T00:00:00Z"
    done = run(lite_site, *SCHEDULED, "reschedule", "--id", planned[0], "--at", at)
    assert done.stdout == "1 rescheduled.\n"
    run(lite_site, *SCHEDULED, "reschedule", "--schedule", "second", "--at", "2h")
    assert values(run(lite_site, *SCHEDULED, "fire", "--name", "Told", "--json")) == [
        {"fired": 1, "left": 0}
    ]
    found, now = plan(lite_site), datetime.now(UTC)
    assert found[planned[0]] == datetime(2041, 1, 1, tzinfo=UTC)
    assert timedelta(minutes=119) < found[planned[1]] - now <= 2 * HOUR
    assert abs(found[planned[2]] - now) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "given",
    [
        ["cancel", "--yes"],
        ["cancel", "--all", "--name", "Told", "--yes"],
        ["cancel", "--all", "--schedule", "first", "--yes"],
        ["fire"],
        ["fire", "--all", "--rate", "0"],
        ["cancel", "--all", "--yes", "--rate", "nan"],
        ["reschedule", "--all"],
        ["reschedule", "--all", "--at", "tomorrow"],
        ["list", "--from", "soon"],
        ["list", "--limit", "0"],
        ["list", "--reason", "("],
        ["show"],
    ],
)
def test_what_is_not_said_clearly_changes_nothing(
    lite_site: Site, planned: list[str], given: list[str]
) -> None:
    """Neither nothing nor too much is taken for a choice."""
    before: dict[str, Any] = plan(lite_site)
    assert set(before) == set(planned)
    assert run(lite_site, *SCHEDULED, *given, code=2).stderr
    assert plan(lite_site) == before


@pytest.mark.parametrize(
    ("given", "past"),
    [
        (["cancel", "--yes"], "cancelled"),
        (["reschedule", "--at", "2041-01-01T00:00:00Z"], "rescheduled"),
        (["fire"], "fired"),
    ],
)
def test_a_rate_holds_each_act_and_an_interruption_leaves_the_others(
    lite_site: Site, given: list[str], past: str
) -> None:
    """It says how many were done until then, and notes it; all others are as they were."""
    Outbox(lite_site.database).publish([{"name": "N", "data": {}}] * 60, deliver_at=AT)

    def left() -> int:
        return sum(at == AT for at in plan(lite_site).values())

    line = " ".join(["celery -A tasks", *SCHEDULED, *given, "--all", "--rate", "20"])
    acting = lite_site.start(line)
    wait_until(lambda: left() < 60, description="the first ones")
    acting.signal(signal.SIGINT)
    assert acting.exit_code() == 1, acting.text()
    assert 0 < left() < 60
    said = re.search(rf"Interrupted: (\d+) {past}; the others", acting.text())
    assert said is not None, acting.text()
    assert 60 - left() - int(said[1]) in {0, 10}  # one portion may have been under way
    (act,) = values(run(lite_site, "outbox", "actions", "--json"))
    assert (act["result"], act["count"]) == ("interrupted", int(said[1]))


def test_an_id_or_name_that_is_not_there_is_refused(lite_site: Site, planned: list[str]) -> None:
    """With all that were given beside it, so that a slip of the pen is seen."""
    unknown = str(ObjectId())
    for act in (["cancel", "--yes"], ["fire"], ["reschedule", "--at", "2h"]):
        done = run(lite_site, *SCHEDULED, *act, "--id", unknown, "--id", planned[0], code=1)
        assert f"Not scheduled: {unknown}; nothing was done" in done.stderr
        done = run(lite_site, *SCHEDULED, *act, "--schedule", "secnd", code=1)
        assert "Not scheduled: secnd; nothing was done" in done.stderr
    assert len(plan(lite_site)) == 3
