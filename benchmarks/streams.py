"""What the change streams of a divided outbox cost MongoDB: each looks at all that is written."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.report import Figure
from benchmarks.sharing import rows
from postroom.partitioning import Partitioning
from postroom.relay.reading.stream import open_stream, replies
from postroom.store.clients import operation_time
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bson import Timestamp

    from postroom.store.values import OutboxPartition
    from tests.site import Site

__all__ = ["COUNTS", "WAYS", "streams"]

COUNTS = (1, 4, 8, 16)
WRITERS = 4
PASSES = 3


class Way(NamedTuple):
    """How rows are written: so many, `together` in one transaction or in one plain command."""

    what: str
    rows: int
    together: int
    in_transactions: bool


WAYS = (
    Way("written plainly", 20_000, 1000, in_transactions=False),
    Way("in transactions of 20", 20_000, 20, in_transactions=True),
    Way("in transactions of 1", 8_000, 1, in_transactions=True),
)


def streams(site: Callable[[], Site]) -> list[Figure]:
    """Have N streams read the same log, each an Nth of its events; MongoDB's processor time."""
    return [_figure(site(), way, count) for way in WAYS for count in COUNTS]


def _figure(site: Site, way: Way, count: int) -> Figure:
    since = operation_time(site.database)
    site.database.create_collection(site.outbox.name)
    _write(site, way, count)
    names = Partitioning(count=count).names
    each = [_read(site, names, since, way.rows) for _ in range(PASSES)]
    return Figure(
        what=f"MongoDB's processor time an event, {way.what}, N = {count}",
        value=statistics.median(each),
        unit="µs",
        detail=f"{way.rows:,} events, {statistics.median(each) / count:.1f} µs a stream; "
        f"medians of {PASSES} readings: {', '.join(f'{one:.1f}' for one in each)}",
    )


def _write(site: Site, way: Way, count: int) -> None:
    def write(first: int) -> None:
        some = rows(way.together, first, partitions=count)
        if not way.in_transactions:
            site.outbox.insert_many(some, ordered=False)
            return
        with site.database.client.start_session() as session, session.start_transaction():
            site.outbox.insert_many(some, session=session)

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(write, range(0, way.rows, way.together)))


def _read(site: Site, names: Sequence[OutboxPartition], since: Timestamp, expected: int) -> float:
    """Read all with a stream for each outbox partition, side by side, as relays do."""

    def read(name: OutboxPartition, left: int) -> None:
        token = open_stream(site.outbox, partition=name, after=since)
        for reply in replies(site.outbox, partition=name, token=token):
            left -= reply.rows
            if not left:
                break

    rows_of = [site.outbox.count_documents({OutboxField.PARTITION: name}) for name in names]
    before = _used(site)
    with ThreadPoolExecutor(len(names)) as readers:
        list(readers.map(read, names, rows_of))
    return (_used(site) - before) / expected


def _used(site: Site) -> float:
    """Return the microseconds of processor time that MongoDB has used."""
    info = site.database.command("serverStatus")["extra_info"]
    return float(info["user_time_us"] + info["system_time_us"])
