"""What scheduled events take: from due moment to subscriber, and many that are due at once."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from benchmarks.relaying import fill, held_back, relaying, rows
from benchmarks.report import Figure, percentile
from postroom import Outbox, wire
from postroom.store import plan_indexes
from postroom.wire import ScheduledField

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pulsar

    from tests.site import Site

__all__ = ["burst", "latency"]

AHEAD = timedelta(seconds=3)
WARM_UP = 500


def events(count: int) -> list[dict[str, Any]]:
    """Make events without keys."""
    return [{"name": "MedicineNoticed", "data": {"n": n}} for n in range(count)]


def latency(site: Site, *, rate: int, seconds: int) -> list[Figure]:
    """Have `rate` events a second be due, and see when a plain subscriber has each."""
    outbox = Outbox(site.database)
    plain = site.subscribe()
    with relaying(site):
        # As of a relay that runs: its producer is there, and the broker has met this topic.
        outbox.publish(events(WARM_UP))
        _receive(plain, WARM_UP)
        count = rate * seconds
        begin = _now(site) + AHEAD + timedelta(seconds=count / 200)
        due = {}
        with outbox.scope() as tx:
            for n, event in enumerate(events(count)):
                at = begin + timedelta(seconds=n / rate)
                (event_id,) = tx.publish(event, deliver_at=at)
                due[event_id] = at
        assert _now(site) < begin, "they were due before all were written"
        late = []
        for _ in range(count):
            message = plain.receive(30_000)
            plain.acknowledge_cumulative(message)
            at = due[message.properties()["id"]]
            late.append((datetime.now(UTC) - at).total_seconds() * 1000)
    at_rate = f"at {rate} due a second"
    return [
        Figure(
            what=f"due moment to plain subscriber {at_rate}, {name}",
            value=percentile(late, share),
            unit="ms",
            bar=bar,
        )
        for name, share, bar in (("p50", 0.5, None), ("p99", 0.99, 250.0))
    ]


def burst(sites: Sequence[Site], count: int) -> list[Figure]:
    """Compare events that are due in one moment with as many that wait in the outbox."""
    third = len(sites) // 3
    plain = statistics.median(_drained(site, count) for site in sites[:third])
    due = statistics.median(_fired(site, count, _schedule) for site in sites[third : 2 * third])
    named = statistics.median(_fired(site, count, _name) for site in sites[2 * third :])
    return [
        Figure(
            what=f"{count} that wait in the outbox, from the first to the last",
            value=plain,
            unit="events/s",
        ),
        Figure(
            what=f"{count} that are due in one moment, from then on", value=due, unit="events/s"
        ),
        Figure(
            what=f"{count} that are due in one moment and have names", value=named, unit="events/s"
        ),
        Figure(
            what="due in one moment / waiting in the outbox",
            value=due / plain,
            unit="x",
            bar=0.3,
            at_least=True,
        ),
    ]


def _drained(site: Site, count: int) -> float:
    plain = site.subscribe()
    with held_back(site):
        fill(site, count)
    plain.receive(30_000)
    began = time.monotonic()
    _receive(plain, count - 1)
    return count / (time.monotonic() - began)


def _fired(site: Site, count: int, schedule: Callable[[Site, int, datetime], None]) -> float:
    plain = site.subscribe()
    with relaying(site):
        at = _now(site) + AHEAD + timedelta(seconds=count / 2000)
        schedule(site, count, at)
        left = (at - _now(site)).total_seconds()
        assert left > 0, "they were due before all were written"
        began = time.monotonic() + left
        _receive(plain, count)
        return count / (time.monotonic() - began)


def _schedule(site: Site, count: int, at: datetime) -> None:
    Outbox(site.database).publish(events(count), deliver_at=at)


def _name(site: Site, count: int, at: datetime) -> None:
    # By hand: publish() writes one event with a name at a time, and 10,000 take it half a minute.
    plan_indexes.prepare(site.database)
    named = [
        {**row, ScheduledField.SLOT: n, ScheduledField.DUE_AT: at, ScheduledField.SCHEDULE: str(n)}
        for n, row in enumerate(rows(count))
    ]
    site.database[wire.SCHEDULED].insert_many(named)


def _receive(plain: pulsar.Consumer, count: int) -> None:
    for _ in range(count):
        message = plain.receive(30_000)
    plain.acknowledge_cumulative(message)


def _now(site: Site) -> datetime:
    found: datetime = site.mongodb.admin.command("hello")["localTime"]
    return found.replace(tzinfo=UTC)
