"""Relay workers share the outbox partitions, and nothing is lost, doubled or out of order by it."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from postroom.relay.state import State
from tests.relays import partitions, sharing
from tests.waiting import wait_until

if TYPE_CHECKING:
    from postroom.relay.sharing.pool import Pool
    from tests.site import Site

pytestmark = pytest.mark.pulsar


def served(pool: Pool) -> set[str]:
    """Name the outbox partitions that a worker relays at this moment."""
    return {r.status.partition for r in pool.relays if r.status.state is State.RELAYING}


def settled(*pools: Pool, shares: list[int], seconds: float = 15) -> None:
    """Wait until all is served, and the shares are these."""

    def is_so() -> bool:
        found = [served(pool) for pool in pools]
        return sorted(len(each) for each in found) == sorted(shares) and all(
            count == 1 for count in Counter(p for each in found for p in each).values()
        )

    wait_until(is_so, description=f"shares of {shares}", seconds=seconds)


def test_workers_share_and_what_moves_is_sent_once(pulsar_site: Site) -> None:
    """One has all; a second one gets half of them, and gives them back when it ends."""
    site = pulsar_site
    site.admin("PUT", "/partitions", body=b"4")
    consumer = site.subscribe()
    with sharing(site) as first:
        settled(first, shares=[4])
        sent = [site.insert(5, partition=each) for each in partitions(4)]
        with sharing(site) as second:
            settled(first, second, shares=[2, 2])
            sent += [site.insert(5, partition=each) for each in partitions(4)]
            assert Counter(r["heldBy"]["worker"] for r in rows(site)) == {
                first.name: 2,
                second.name: 2,
            }
        settled(first, shares=[4])
        sent += [site.insert(5, partition=each) for each in partitions(4)]
        messages = site.receive(consumer, 60)
        assert sorted(m.properties()["id"] for m in messages) == sorted(itertools.chain(*sent))
    assert not any("heldBy" in r for r in rows(site))


def rows(site: Site) -> list[dict[str, Any]]:
    """Return the checkpoints' rows."""
    return list(site.database["__outboxConsumers"].find())
