"""Relay workers share the outbox partitions, whoever comes, goes, dies or stands still."""

from __future__ import annotations

import itertools
import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.commands import printed, run
from tests.flow import WORKER, Flow, owners, start_workers, wait_for_shares
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site, Worker

pytestmark = pytest.mark.pulsar

QUEUES = ("relay.9", "relay,relay.1", "relay.1", "relay.2")


def name_of(worker: Worker, site: Site) -> str:
    """Return the name by which a worker's outbox partitions are held."""
    found = {name for name in owners(site).values() if f"-{worker.process.pid}-" in name}
    assert len(found) == 1
    return found.pop()


def test_whoever_comes_and_goes_all_is_sent_once_in_order(pulsar_site: Site) -> None:
    """Two workers, a third one that joins, a kill, a freeze, and one that leaves."""
    site = pulsar_site
    with Flow(site, 6) as flow:
        first, second = start_workers(site, 2, of=6)
        wait_for_shares(site, 3, 3)
        flow.caught_up()
        (third,) = start_workers(site, 1, of=6)
        before, since = owners(site), time.monotonic()
        after = wait_for_shares(site, 2, 2, 2)
        flow.caught_up()
        stayed = [part for part in after if after[part] == before[part]]
        assert len(stayed) == 4
        # On a quiet machine 0.2 s and 0.6 s.
        assert flow.worst(since, parts=stayed) < 3
        assert flow.worst(since) < 5

        killed = name_of(third, site)
        third.kill()
        wait_for_shares(site, 3, 3, without=[killed])
        flow.caught_up()

        frozen = name_of(second, site)
        second.signal(signal.SIGSTOP)
        wait_for_shares(site, 6, without=[frozen])
        flow.caught_up()
        second.signal(signal.SIGCONT)
        wait_for_shares(site, 3, 3)
        flow.caught_up()

        assert first.stop() == 0
        wait_for_shares(site, 6)
        flow.caught_up()
        flow.ended()
        assert second.stop() == 0
    assert not owners(site)
    # Each term has found the message at which its checkpoint was.
    assert not [w for w in (first, second, third) if "no longer keeps" in w.text()]


def test_a_worker_is_pinned_by_number_and_refused_by_name(pulsar_site: Site) -> None:
    """A number serves that outbox partition alone; what nobody serves each relay worker says."""
    site = pulsar_site
    words = {queue: WORKER.format(queue=queue) for queue in QUEUES}
    refused = [site.start(words[q], POSTROOM_PARTITIONS="8") for q in ("relay.9", "relay,relay.1")]
    for worker, sentence in zip(
        refused, ("-Q relay.9 names none of the 8", "give one of the two"), strict=True
    ):
        assert worker.exit_code() == 1
        assert sentence in worker.text()
    pinned, neighbour = (site.start(words[f"relay.{n}"], POSTROOM_PARTITIONS="3") for n in (1, 2))
    for number, worker in ((1, pinned), (2, neighbour)):
        worker.wait_for(f"Relaying partition 'default-{number}'")
        worker.wait_for("Nobody serves the outbox partition default-0")
    assert set(owners(site)) == {1, 2}
    (other,) = start_workers(site, 1, of=3)
    other.wait_for("Relaying partition 'default-0'")
    for worker in (pinned, neighbour):
        worker.wait_for("All 3 outbox partitions are served again")
    pinned.kill()
    other.wait_for("Relaying partition 'default-1'")


def test_a_share_may_be_limited_and_an_outbox_partition_paused(pulsar_site: Site) -> None:
    """The rest waits for another worker; a pause holds for whoever serves it."""
    site = pulsar_site
    (limited,) = start_workers(site, 1, of=3, POSTROOM_RELAY_SHARE="2")
    wait_for_shares(site, 2)
    limited.wait_for("Nobody serves the outbox partition default-2")
    site.environment["POSTROOM_PARTITIONS"] = "3"
    lines = printed(site, "outbox status --json").splitlines()
    told = [json.loads(line) for line in lines]
    assert [view["partition"] for view in told] == [f"default-{n}" for n in range(3)]
    assert [view["served_by"] for view in told] == [*owners(site).values(), "nobody"]

    def said() -> str:
        return " ".join(run(site, "outbox", "doctor", code=None).stdout.split())

    wait_until(
        lambda: "No relay that has answered serves default-2 just now" in said(),
        description="the doctor, whom a worker answers within a second, finds what nobody serves",
    )
    printed(site, "outbox pause --partition default-0")
    limited.wait_for("is paused")
    (other,) = start_workers(site, 1, of=3)
    wait_for_shares(site, 2, 1)
    wait_until(
        lambda: f"-{other.process.pid}-" in printed(site, "outbox status"),
        description="the other is shown",
    )
    stats = site.run("celery -A tasks inspect stats --json --timeout 5")
    told = sorted(each["postroom-share"]["serves"] for each in json.loads(stats).values())
    assert sorted(itertools.chain(*told)) == [f"default-{n}" for n in range(3)]
    with Flow(site, 3) as flow:
        wait_until(lambda: {a.part for a in flow.arrivals} == {1, 2}, description="two flow")
        printed(site, "outbox resume --partition default-0")
        flow.caught_up()
        flow.ended()
    assert other.stop() == limited.stop() == 0
