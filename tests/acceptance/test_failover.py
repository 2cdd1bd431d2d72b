"""Who relays, who stands by, and what becomes of a leader that wakes up or dies."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

from tests.site import ids
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site


def test_a_woken_leader_sends_nothing_and_stands_by(pulsar_site: Site) -> None:
    """Frozen until another relay has taken over, it finds that out before it sends."""
    plain = pulsar_site.subscribe()
    leader, standby = pulsar_site.relay_and_standby()
    written = pulsar_site.insert(10)
    assert ids(pulsar_site.receive(plain, 10)) == written
    leader.signal(signal.SIGSTOP)
    written = pulsar_site.insert(10)
    standby.wait_for("Relaying partition")
    assert ids(pulsar_site.receive(plain, 10)) == written
    leader.signal(signal.SIGCONT)
    written = pulsar_site.insert(10)
    leader.wait_for("Another relay holds the mutex")
    assert ids(pulsar_site.receive(plain, 10)) == written
    assert standby.stop() == 0
    written = pulsar_site.insert(10)
    assert ids(pulsar_site.receive(plain, 10)) == written
    assert leader.stop() == 0


def holders(site: Site) -> list[dict[str, Any]]:
    """Return the consumers of the mutex's subscription."""
    stats = json.loads(site.admin("GET", "/stats", topic=site.environment["POSTROOM_MUTEX_TOPIC"]))
    found: list[dict[str, Any]] = stats["subscriptions"]["mutex"]["consumers"]
    return found


def test_the_holder_is_seen_in_pulsar_and_in_the_checkpoint(pulsar_site: Site) -> None:
    """By the same name, with the time since when."""
    relay = pulsar_site.relay()
    relay.wait_for("goes on from there")
    (holder,) = holders(pulsar_site)
    assert holder["consumerName"] == pulsar_site.checkpoint["owner"]
    assert holder["metadata"]["since"]
    assert holder["metadata"]["partition"] == "default"
    assert pulsar_site.checkpoint["epoch"] == 1
    assert pulsar_site.checkpoint["ownedAt"]
    assert relay.stop() == 0
    wait_until(lambda: not holders(pulsar_site), description="the mutex is free")


def test_a_relay_thread_that_dies_takes_the_worker_with_it(lite_site: Site) -> None:
    """Never a worker that answers pings and relays nothing: the reason, and exit code 1."""
    worker = lite_site.start("celery -A tests.dying worker -Q relay --loglevel=INFO")
    assert worker.exit_code() == 1
    assert "The relay thread died" in worker.text()
    assert "nobody has thought of this" in worker.text()
