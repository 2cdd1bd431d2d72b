"""Overview: how far each partition is relayed, as the database alone can tell."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from postroom import errors, wire
from postroom.relay import source
from postroom.store.quarantine import Quarantine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymongo.database import Database

__all__ = ["MOST_COUNTED", "Overview", "overview"]

# Waiting rows are counted by reading the change stream; behind this many it matters no more.
MOST_COUNTED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """One partition.

    `owner` is the relay that last took office, in `epoch`, at `since`; whether it still lives, its
    mutex tells. `waiting` counts the rows behind the checkpoint, at most MOST_COUNTED, and is None
    where that cannot be told. `reached` is up to when the outbox is relayed.
    """

    partition: str
    owner: str | None
    epoch: int | None
    since: datetime | None
    position: int | None
    last_relayed_row: str | None
    checkpointed_at: datetime | None
    reached: datetime | None
    waiting: int | None
    scanning: bool
    topics: list[str]
    quarantined: int


def overview(database: Database[Any]) -> list[Overview]:
    """Return an overview of every partition that a relay was ever started for, by name."""
    rows = database[wire.CHECKPOINTS].find().sort("partitionKey", 1)
    return [_of(database, row) for row in rows]


def _of(database: Database[Any], row: Mapping[str, Any]) -> Overview:
    partition = row["partitionKey"]
    reached = row.get("clusterTime")
    last = row.get("lastProcessedId")
    return Overview(
        partition=partition,
        owner=row.get("owner"),
        epoch=row.get("epoch"),
        since=row.get("ownedAt"),
        position=row.get("position"),
        last_relayed_row=None if last is None else str(last),
        checkpointed_at=row.get("lastUpdatedAt"),
        reached=datetime.fromtimestamp(reached.time, UTC) if reached else None,
        waiting=_waiting(database, row),
        scanning=row.get("scan") is not None,
        topics=[lane["topic"] for lane in row.get("lanes", ())],
        quarantined=Quarantine(database, partition=partition).count(),
    )


def _waiting(database: Database[Any], row: Mapping[str, Any]) -> int | None:
    outbox, partition = database[wire.OUTBOX], row["partitionKey"]
    token = row.get("resumeToken")
    if row.get("scan") is not None:
        return None
    if token is None:
        return outbox.count_documents({"partitionKey": partition}, limit=MOST_COUNTED)
    count = 0
    try:
        for batch in source.stream(outbox, partition=partition, token=token):
            found = sum(len(rows) for rows in batch.slices)
            count += found
            if not found or count >= MOST_COUNTED:
                return min(count, MOST_COUNTED)
    except errors.HistoryLost:
        return None
    return count
