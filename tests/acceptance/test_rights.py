"""The rights of docs/security.md: with them each part works, and with one less it says which."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo import errors as mongo

from postroom import Outbox, wire
from postroom.rights import PARTS
from postroom.topics import canonical
from tests.commands import printed, run
from tests.relays import relaying
from tests.secured_pulsar import token
from tests.site import row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.secured_mongodb import SecuredMongoDB
    from tests.secured_pulsar import SecuredPulsar
    from tests.site import Site

pytestmark = [pytest.mark.pulsar, pytest.mark.timeout(400)]

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
PASSWORD = "p@ss:w/ö,rd"  # noqa: S105 - it is looked for
EVENT = {"name": "Reminded", "data": {}}
WRITER = "celery -A tasks worker --loglevel=INFO -P solo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Less:
    """One right that is taken away: an action on a collection, or a grant on a topic."""

    action: str
    where: str

    def takes(self, action: str, where: str) -> bool:
        """Say whether it is this one."""
        return (action, where) == (self.action, self.where)


def rights() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return what the page says: roles in MongoDB, grants in Pulsar, roles of a divided outbox."""
    found = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    mongodb, pulsar, divided = (json.loads(block) for block in found)
    return mongodb, pulsar, divided


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Makes users and tokens of the page's roles, for one site."""

    mongodb: SecuredMongoDB
    pulsar: SecuredPulsar
    site: Site
    is_divided: bool = False

    def variables(self, role: str, *, less: Less | None = None) -> dict[str, str]:
        """Return the variables of a role, less one right."""
        name = f"{role}-{uuid.uuid4().hex[:8]}"
        privileges, grants, divided = (found.get(role, {}) for found in rights())
        self._make_user(name, [*privileges, *(divided if self.is_divided else ())], less)
        self._grant(name, grants, less)
        return {
            "POSTROOM_MONGODB_URI": self.mongodb.address(name, PASSWORD),
            "POSTROOM_PULSAR_TOKEN": token(name),
        }

    def settings(self, role: str, *, less: Less | None = None) -> dict[str, Any]:
        """Return the same as settings."""
        found = self.variables(role, less=less)
        return {name.removeprefix("POSTROOM_").lower(): value for name, value in found.items()}

    def _make_user(self, name: str, privileges: list[Any], less: Less | None) -> None:
        own = []
        for privilege in privileges:
            where = privilege["resource"]["collection"]
            actions = [a for a in privilege["actions"] if not less or not less.takes(a, where)]
            resource = {"db": self.site.name, "collection": where}
            own += [{"resource": resource, "actions": actions}] if actions else []
        self.mongodb.make_role(name, own)
        self.mongodb.make_user(name, PASSWORD, [name])

    def _grant(self, name: str, grants: Mapping[str, list[str]], less: Less | None) -> None:
        for topic, actions in grants.items():
            own = [a for a in actions if not less or not less.takes(a, topic)]
            here = topic.replace("/events", f"/{self.site.name}")
            here = here.replace("/mutex", f"/{self.site.name}-mutex")
            if own:
                self.pulsar.grant(name, own, on=f"persistent/{here}")


@pytest.fixture
def roles(
    secured_site: Site, secured_mongodb: SecuredMongoDB, secured_pulsar: SecuredPulsar
) -> Roles:
    """Return the roles of a site."""
    return Roles(mongodb=secured_mongodb, pulsar=secured_pulsar, site=secured_site)


@contextlib.contextmanager
def acting(site: Site, variables: Mapping[str, str]) -> Iterator[Site]:
    """Run commands as a role within the block."""
    before = site.environment
    site.environment = {**before, **variables}
    try:
        yield site
    finally:
        site.environment = before


def status(site: Site, words: str) -> None:
    """Wait for a status with these words: a MongoDB that is busy does not answer in its time."""
    wait_until(
        lambda: words in run(site, "outbox", "status", code=None).stdout,
        description=f"the status has {words}",
    )


def test_every_part_works_with_the_rights_of_the_page(secured_site: Site, roles: Roles) -> None:
    """From task to chart, through quarantine and dead letters; nobody is refused anything."""
    site = secured_site
    relay = site.relay(**roles.variables("relay"))
    consumer = site.consumer(**roles.variables("consumer"))
    writer = site.start(WRITER, **roles.variables("writer"))
    for worker in (relay, consumer, writer):
        worker.wait_for("ready.", seconds=60)
    relay.wait_for("Relaying partition")
    told = json.dumps({"medicine_id": "aspirin", "patient_id": "anna"}, separators=(",", ":"))
    site.run(f"celery -A tasks call tasks.assign_medicine --kwargs {told}")
    consumer.wait_for("Consumed event for medicine aspirin")

    wrong = {**row(1), "data": "no event"}
    site.outbox.insert_one(wrong)
    relay.wait_for("quarantine")
    wait_until(lambda: site.database[wire.QUARANTINE].count_documents({}), description="its entry")
    for who in ("operator", "monitor"):
        with acting(site, roles.variables(who)):
            status(site, "default")
    with acting(site, roles.variables("operator")):
        listed = "outbox quarantine list --json"
        assert str(wrong["_id"]) in printed(site, listed)
        printed(site, "outbox quarantine redrive --all")
        entries = site.database[wire.QUARANTINE]
        wait_until(
            lambda: entries.count_documents({"_id": wrong["_id"], "retriedAt": None}),
            description="it again",
        )
        assert "1 discarded" in printed(site, "outbox quarantine discard --all --yes")
        site.outbox.insert_one({**row(2), "data": {"name": "MedicineAssigned", "data": {"x": 1}}})
        consumer.wait_for("dead letter")
        assert "MedicineAssigned" in printed(site, "dead-letters list")
        printed(site, "dead-letters redrive")
    for worker in (relay, consumer, writer):
        assert worker.stop() == 0
        text = worker.text()
        for word in (" may not ", "Unauthorized", "AuthorizationError", PASSWORD):
            assert word not in text, f"{word}\n{text[-3000:]}"


def test_scheduled_events_need_what_the_page_says(secured_site: Site, roles: Roles) -> None:
    """Scheduled, moved, cancelled, fired and looked at; nobody is refused anything."""
    site, hour = secured_site, timedelta(hours=1)
    relay = site.relay(**roles.variables("relay"))
    relay.wait_for("Relaying partition")
    consumer = site.subscribe()
    with MongoClient[Any](roles.settings("scheduler")["mongodb_uri"]) as client:
        outbox = Outbox(client[site.name])
        outbox.publish(EVENT, deliver_in=timedelta())
        site.receive(consumer, 1)
        for name in ("fired", "replaced", "cancelled", "moved"):
            outbox.publish(EVENT, deliver_in=hour, schedule=name)
        outbox.publish(EVENT, deliver_in=hour, schedule="replaced", replace=True)
        with outbox.scope() as tx:
            assert tx.cancel("cancelled")
            assert tx.reschedule("moved", deliver_in=timedelta())
        site.receive(consumer, 1)
    with acting(site, roles.variables("operator")):
        plan = "outbox scheduled"
        assert "1 rescheduled" in printed(site, f"{plan} reschedule --schedule fired --at 2h")
        assert "1 fired" in printed(site, f"{plan} fire --schedule fired")
        assert "1 cancelled" in printed(site, f"{plan} cancel --schedule replaced --yes")
    site.receive(consumer, 1)
    with acting(site, roles.variables("monitor")):
        assert "0 scheduled events" in printed(site, f"{plan} list")
    assert relay.stop() == 0
    for word in (" may not ", "refuses", "Unauthorized"):
        assert word not in relay.text()


def test_a_relay_without_a_right_to_the_plan_relays_all_else(
    secured_site: Site, roles: Roles
) -> None:
    """It says so; what was scheduled waits, and goes with a relay that has it."""
    site, lacking = secured_site, (("find", wire.SCHEDULED), ("remove", wire.SCHEDULED))
    consumer = site.subscribe()
    Outbox(site.database).publish(EVENT, deliver_in=timedelta())
    for number, (action, where) in enumerate(
        (*lacking, ("insert", wire.FIRED), ("insert", wire.OUTBOX))
    ):
        relay = site.relay(**roles.variables("relay", less=Less(action=action, where=where)))
        relay.wait_for("stay there. All else goes on", seconds=60)
        (sent,) = site.insert(1, first=number)
        assert site.receive(consumer, 1)[0].properties()["id"] == str(sent)
        assert relay.stop() == 0
        assert "Traceback" not in relay.text()
    site.relay(**roles.variables("relay"))
    site.receive(consumer, 1)


def test_a_writer_without_a_right_to_the_plan_schedules_nothing(
    secured_site: Site, roles: Roles
) -> None:
    """The driver's error reaches the application, and its data are not there either."""
    site = secured_site
    outbox = Outbox(site.database)
    outbox.publish(EVENT, deliver_in=timedelta(hours=1), schedule="there")
    before = list(site.database[wire.SCHEDULED].find())

    def change(outbox: Outbox) -> None:
        with outbox.scope() as tx:
            tx.publish(EVENT, deliver_in=timedelta(hours=1), schedule="new")
            tx.reschedule("there", deliver_in=timedelta())
            tx.publish(EVENT, deliver_in=timedelta(hours=1), schedule="there", replace=True)
            tx.cancel("there")
            tx.cancel(event_id=str(ObjectId()))

    rights = PARTS["scheduler"].items()
    for where, action in [(where, each) for where, (always, _) in rights for each in always]:
        less = roles.settings("scheduler", less=Less(action=action, where=where))
        with MongoClient[Any](less["mongodb_uri"]) as client:
            with pytest.raises(mongo.OperationFailure, match="not authorized") as failed:
                change(Outbox(client[site.name]))
            assert failed.value.code == 13
        assert list(site.database[wire.SCHEDULED].find()) == before


def test_a_divided_outbox_needs_what_the_page_says_besides(
    secured_site: Site, roles: Roles
) -> None:
    """Divided, written, relayed, shown and divided anew; the admin interface is not needed."""
    site, roles = secured_site, dataclasses.replace(roles, is_divided=True)

    def make_or_grow(method: str, count: int) -> None:
        topic = canonical(site.topic).replace("://", "/")
        roles.pulsar.admin(method, f"{topic}/partitions", str(count).encode())

    make_or_grow("PUT", 2)
    consumer = site.subscribe()
    for count in (2, 4):
        with acting(site, roles.variables("operator")):
            printed(site, f"outbox partitions --to {count} --yes")
        if count == 4:
            make_or_grow("POST", 4)
            consumer = site.subscribe("another")
        relay = site.relay(**roles.variables("relay"), POSTROOM_PARTITIONS=str(count))
        with MongoClient[Any](roles.settings("writer")["mongodb_uri"]) as client:
            outbox = Outbox(client[site.name], partitions=count)
            outbox.publish([{"name": "Counted", "data": {"number": n}} for n in range(8)])
        site.receive(consumer, 8 if count == 2 else 16)
        with acting(site, {**roles.variables("monitor"), "POSTROOM_PARTITIONS": str(count)}):
            assert f"{count} outbox partitions" in printed(site, "outbox partitions")
            status(site, "-0")
        if count == 4:
            assert relay.stop() == 0
            assert " may not " not in relay.text()
    less = roles.settings("writer", less=Less(action="find", where=wire.PARTITIONS))
    with MongoClient[Any](less["mongodb_uri"]) as client:
        with pytest.raises(mongo.OperationFailure, match="not authorized"):
            Outbox(client[site.name], partitions=4).publish({"name": "Counted", "data": {}})
        assert site.outbox.count_documents({}) == 16


def test_the_page_says_what_is_looked_at_before_a_start() -> None:
    """A part's rights stand in two places, and are the same."""
    page, _, _ = rights()
    for part, looked_at in PARTS.items():
        said = {each["resource"]["collection"]: set(each["actions"]) for each in page[part]}
        for collection, (always, at_times) in looked_at.items():
            assert said.get(collection, set()) == {*always, *at_times}, (part, collection)


def test_a_relay_says_which_right_in_mongodb_it_lacks(secured_site: Site, roles: Roles) -> None:
    """Each of those without which it cannot work is named, with the collection; nothing is sent."""
    for collection, (always, _) in PARTS["relay"].items():
        for action in always:
            less = roles.settings("relay", less=Less(action=action, where=collection))
            with relaying(secured_site, wait=False, **less) as relay:
                words = (f"may not {action} on", collection or secured_site.name, "grantPriv")
                wait_until(
                    lambda: all(word in relay.status.reason for word in words),  # noqa: B023
                    description=f"{words}",
                )
                assert relay.status.counts.terms == 0


GRANTS = [
    ("consume", "public/default/mutex", "-mutex", "look at"),
    ("produce", "public/default/events", "", "lacks produce on"),
    ("consume", "public/default/events", "", "lacks consume on"),
    ("produce", "public/default/postroom-probe", "postroom-probe", "make"),
]


def test_a_relay_says_which_grant_in_pulsar_it_lacks(
    secured_site: Site, roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is named with its topic."""
    for action, topic, name, words in GRANTS:
        caplog.clear()
        less = roles.settings("relay", less=Less(action=action, where=topic))
        with relaying(secured_site, wait=False, **less):
            said = name if name.startswith("postroom") else f"{secured_site.topic}{name}"
            wait_until(
                lambda: any(said in r.message and words in r.message for r in caplog.records),  # noqa: B023
                description=f"{said}, {words}",
            )
        assert "Traceback" not in caplog.text


def test_a_writer_without_its_right_writes_nothing(secured_site: Site, roles: Roles) -> None:
    """The driver's error reaches the application, and the transaction is gone."""
    less = roles.settings("writer", less=Less(action="insert", where="__outboxMessages"))
    with MongoClient[Any](less["mongodb_uri"]) as client:
        outbox = Outbox(client[secured_site.name])
        with pytest.raises(mongo.OperationFailure) as failed, outbox.scope() as tx:
            tx.publish({"name": "Counted", "data": {"number": 1}})
    assert failed.value.code == 13


def test_a_consumer_says_which_right_it_lacks(secured_site: Site, roles: Roles) -> None:
    """And goes on asking."""
    less = roles.variables("consumer", less=Less(action="createIndex", where="__inboxMessages"))
    consumer = secured_site.consumer(**less)
    consumer.wait_for(f"may not createIndex on {secured_site.name}.__inboxMessages", seconds=60)


def test_an_operator_is_told_which_right_is_lacking(secured_site: Site, roles: Roles) -> None:
    """By the command itself, without a traceback."""
    less = roles.variables("operator", less=Less(action="find", where="__outboxQuarantine"))
    with acting(secured_site, less), pytest.raises(AssertionError) as failed:
        secured_site.run("celery -A tasks outbox quarantine list")
    assert "may not find on" in str(failed.value)
    assert "Traceback" not in str(failed.value)
