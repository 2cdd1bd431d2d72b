"""When an event was committed is told with what became of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bson import Timestamp

from postroom.relay.reading.stream import open_stream, replies
from postroom.store.values import DEFAULT_PARTITION
from tests.site import row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.relay.reading.stream import Reply
    from tests.site import Site


def server_time(site: Site) -> datetime:
    """Return MongoDB's clock, in milliseconds."""
    found: datetime = site.mongodb.admin.command("hello")["localTime"]
    return found.astimezone(UTC)


def with_rows(found: Iterator[Reply]) -> Reply:
    """Return the first reply that has rows."""
    return next(reply for reply in found if reply.rows)


def test_a_reply_knows_when_its_first_row_was_committed(lite_site: Site) -> None:
    """Not when it was written: a transaction may take long, and writers' clocks may be wrong."""
    site = lite_site
    site.database.create_collection(site.outbox.name)
    now = site.mongodb.admin.command("ping")["operationTime"]
    token = open_stream(
        site.outbox, partition=DEFAULT_PARTITION, after=Timestamp(now.time, now.inc)
    )
    old = row(1) | {"occurredAt": datetime(2020, 1, 1, tzinfo=UTC)}
    with site.mongodb.start_session() as session:
        session.start_transaction()
        site.outbox.insert_one(old, session=session)
        before = server_time(site)
        session.commit_transaction()
    after = server_time(site)
    site.outbox.insert_one(row(2))
    found = replies(site.outbox, partition=DEFAULT_PARTITION, token=token, await_ms=100)
    reply = with_rows(found)
    found.close()
    assert reply.committed_at is not None
    assert before <= reply.committed_at <= after
