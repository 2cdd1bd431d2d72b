"""A relay in a thread of the tests' own process."""

from __future__ import annotations

import contextlib
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from postroom.access.pulsar import plain
from postroom.pulsar_admin import PulsarAdmin
from postroom.relay.relay import Relay
from postroom.relay.sending.experience import Experience
from postroom.relay.sending.lane_options import LaneOptions
from postroom.relay.sharing.pool import Pool
from postroom.relay.state import State
from postroom.routing import Key, Routing
from postroom.store.values import OutboxPartition
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.site import Site

__all__ = ["inexperienced", "lane_options", "partitions", "relaying", "saved", "sharing", "waits"]


def lane_options(timeout: timedelta) -> LaneOptions:
    """Return options of a fenced lane for a producer named `relay`."""
    return LaneOptions(
        producer_name="relay",
        shared_producer_name="relay",
        fenced=True,
        send_timeout=timeout,
        read_timeout=timeout,
        kept_for=timedelta(0),
    )


def waits(relay: Relay) -> bool:
    """Say whether a relay waits and says for what, which it does not before its first attempt."""
    return relay.status.state is State.WAITING and bool(relay.status.reason)


def inexperienced() -> Experience:
    """Return what a relay knows at its start, where no admin interface answers."""
    return Experience(largest=1 << 20, admin=PulsarAdmin(plain("pulsar://127.0.0.1:1")))


@contextlib.contextmanager
def relaying(
    site: Site,
    *,
    topics: Mapping[str, str] | Callable[[str, Mapping[str, Any]], str | None] | None = None,
    key: Key | None = None,
    shared: tuple[str, ...] = (),
    failover: tuple[str, ...] = (),
    wait: bool = True,
    hear: Callable[[object], None] | None = None,
    **settings: Any,
) -> Iterator[Relay]:
    """Run a relay in a thread of this process."""
    found = site.settings(mutex_retry_seconds=0.1, checkpoint_seconds=0.05, **settings)
    routing = Routing(
        default=found.topic,
        topics=topics or {},
        key=key,
        shared=shared,
        read_by_failover=lambda _: frozenset(failover),
        envelopes=found.envelopes,
    )
    relay = Relay(found, routing, subscriptions={"plain": [site.topic]})
    if hear is not None:
        relay.observer.subscribe(hear)
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        if wait:
            wait_until(lambda: relay.status.state is State.RELAYING, description="a term")
            wait_until(
                lambda: "position" in site.checkpoint and "scan" not in site.checkpoint,
                description="its scan",
            )
        yield relay
    finally:
        relay.stop()
        thread.join(20)
        assert not thread.is_alive()


def partitions(count: int) -> list[OutboxPartition]:
    """Return the names of outbox partitions."""
    return [OutboxPartition(f"default-{number}") for number in range(count)]


@contextlib.contextmanager
def sharing(
    site: Site,
    count: int = 4,
    *,
    pins: frozenset[OutboxPartition] | None = None,
    hear: Callable[[object], None] | None = None,
    **settings: Any,
) -> Iterator[Pool]:
    """Run the relays of one worker in threads of this process."""
    found = site.settings(checkpoint_seconds=0.05, partitions=count, **settings)
    routing = Routing(default=found.topic, topics={}, key=None, partitions=count)
    pool = Pool(found, routing, partitions=partitions(count), pins=pins)
    if hear is not None:
        for relay in pool.relays:
            relay.observer.subscribe(hear)
    threads = [threading.Thread(target=run) for run in (pool.run, *(r.run for r in pool.relays))]
    for thread in threads:
        thread.start()
    try:
        yield pool
    finally:
        pool.stop()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)


def saved(site: Site, position: int) -> dict[str, Any]:
    """Wait until the checkpoint has reached a position, and return it."""
    wait_until(
        lambda: site.checkpoint.get("position") == position, description=f"position {position}"
    )
    return site.checkpoint
