"""What POSTROOM_MONGODB_URI may say besides where MongoDB is: nothing that a promise hangs on."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient

from postroom import Event, handles
from postroom.inbox.handling.handlers import Registry
from postroom.inbox.handling.inbox import Inbox
from postroom.store import clients
from postroom.store.server_watch import ServerWatch
from tests.relays import relaying, saved
from tests.site import ids

if TYPE_CHECKING:
    from devstack.replica_set import ReplicaSet
    from tests.site import Site

IMPATIENT = "timeoutMS=300&socketTimeoutMS=300&waitQueueTimeoutMS=1&maxPoolSize=1"
CARELESS = "w=0&journal=false&retryWrites=false&readConcernLevel=local&readPreference=secondary"
SLOW_MS = 1200

pytestmark = pytest.mark.pulsar


def slow_down(replica_set: ReplicaSet, commands: list[str], *, app: str, times: int) -> None:
    """Have the primary take its time over the next commands of an application."""
    data = {"failCommands": commands, "blockConnection": True, "blockTimeMS": SLOW_MS}
    with MongoClient[Any](replica_set.primary().direct_url) as client:
        client.admin.command(
            "configureFailPoint", "failCommand", mode={"times": times}, data=data | {"appName": app}
        )


@pytest.mark.parametrize("options", [IMPATIENT, CARELESS])
def test_a_relay_relays_whatever_the_uri_says(
    replica_set: ReplicaSet, replicated_site: Site, options: str
) -> None:
    """The first read of a stream takes long, and others now and then."""
    site = replicated_site
    plain, written = site.subscribe(), site.insert(3)
    slow_down(replica_set, ["aggregate", "find", "update"], app="postroom-relay", times=6)
    with relaying(site, wait=False, mongodb_uri=f"{replica_set.url}&{options}") as relay:
        written += site.insert(3)
        assert ids(site.receive(plain, 6)) == written
        saved(site, 6)
        assert relay.status.counts.terms == 1


@pytest.mark.parametrize("options", [IMPATIENT, CARELESS])
def test_a_handler_has_its_own_time(
    replica_set: ReplicaSet, replicated_site: Site, options: str
) -> None:
    """A query of its that lasts is no outage, and what it writes is written for good."""
    registry, site = Registry(), replicated_site

    @handles("Counted", name="slow", into=registry)
    def slow(event: Event[Any], session: Any) -> None:
        seen = session.client[site.name]["seen"]
        seen.find_one(session=session)
        seen.insert_one({"number": event.data["number"]}, session=session)

    slow_down(replica_set, ["find"], app="named", times=1)
    uri, watch = f"{replica_set.url}&{options}", ServerWatch()
    with clients.for_consumer(uri, name="named", watch=watch) as client:
        inbox = Inbox(client[site.name], subscription="s", keep=timedelta(days=1))
        inbox.prepare()
        event = Event(id="1", name="Counted", data={"number": 1}, topic="t")
        assert str(inbox.apply(registry.handlers["slow"], [event])) == "handled"
    assert site.database["seen"].count_documents({}) == 1
