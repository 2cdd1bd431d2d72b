"""`outbox pause` and `resume`: a relay stands still, loses nothing, and says so everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from postroom import ConfigurationError
from postroom.operations import pausing
from postroom.operations.actions import Actor, latest
from postroom.relay.watching.view import views
from tests.site import ids
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site

ME = Actor(who="me@here", by="test")


def test_a_paused_partition_stands_still_over_restarts_and_goes_on(site: Site) -> None:
    """What is committed meanwhile waits; behind the pause each event is sent once, in order."""
    plain = site.subscribe()
    with pytest.raises(ConfigurationError, match="No relay was ever started"):
        pausing.pause(site.database, "default", actor=ME)
    relay = site.relay()
    relay.wait_for("goes on from there")
    first = site.insert(3)
    assert ids(site.receive(plain, 3)) == first
    assert pausing.pause(site.database, "default", actor=ME)
    assert not pausing.pause(site.database, "default", actor=ME)
    relay.wait_for("is paused: what is committed waits")
    assert site.checkpoint["position"] == 3
    second = site.insert(3, first=3)
    relay.kill()
    again = site.relay()
    again.wait_for("is paused: what is committed waits")
    (view,) = views(site.database).partitions
    assert (view.paused_by, view.waiting) == ("me@here", 3)
    assert view.paused_since is not None
    assert ids(site.receive(plain, 0)) == []
    assert pausing.resume(site.database, "default", actor=ME)
    assert not pausing.resume(site.database, "default", actor=ME)
    assert ids(site.receive(plain, 3)) == second
    again.wait_for("is relayed again")
    wait_until(lambda: site.checkpoint["position"] == 6, description="the checkpoint")
    assert views(site.database).partitions[0].paused_by is None
    done = [(each.what, each.count) for each in latest(site.database)]
    assert done == [("resume", 0), ("resume", 1), ("pause", 0), ("pause", 1), ("pause", 0)]


def test_a_paused_relay_ends_at_once_and_a_term_is_paused_within_seconds(lite_site: Site) -> None:
    """A stop while it stands still is as quick as any; rows that flow are cut off cleanly."""
    plain = lite_site.subscribe()
    relay = lite_site.relay()
    relay.wait_for("goes on from there")
    written = lite_site.insert(2000)
    wait_until(lambda: lite_site.checkpoint.get("position", 0) > 0, description="a flow")
    pausing.pause(lite_site.database, "default", actor=ME)
    relay.wait_for("is paused", seconds=10)
    assert relay.stop() == 0
    pausing.resume(lite_site.database, "default", actor=ME)
    lite_site.relay()
    assert ids(lite_site.receive(plain, 2000)) == written
