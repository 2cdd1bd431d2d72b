"""Relayed: whether an outbox partition's relay has come past a time, as its checkpoint says."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from postroom.store.checkpoints import Checkpoints

if TYPE_CHECKING:
    from bson import Binary, Timestamp
    from pymongo.database import Database

    from postroom.store.values import OutboxPartition

__all__ = ["comes_past"]

# An idle relay's checkpoint follows every few seconds.
PATIENCE_SECONDS = 15.0
LOOK_SECONDS = 0.25


def comes_past(
    database: Database[Any],
    partition: OutboxPartition,
    moment: Timestamp,
    *,
    collection: Binary,
    over: threading.Event | None = None,
) -> bool:
    """Wait until all that was in a collection at a cluster time is relayed; say whether it is.

    `collection` is its UUID; once the checkpoint speaks of another one, that is not so. Waits for
    15 s, and no longer than until `over` is set.
    """
    over = over or threading.Event()
    checkpoints, end = Checkpoints(database), time.monotonic() + PATIENCE_SECONDS
    while not over.is_set():
        found = checkpoints.of(partition)
        if found is None or found.scan is not None or found.collection != collection:
            return False
        if found.cluster_time is not None and found.cluster_time >= moment:
            return True
        if time.monotonic() > end:
            return False
        over.wait(LOOK_SECONDS)
    return False
