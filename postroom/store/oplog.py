"""The oplog: how far back MongoDB's change streams can begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING, DESCENDING

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from bson import Timestamp
    from pymongo import MongoClient

__all__ = ["Oplog", "first_stamp", "first_time"]

READ_MS = 5_000
FULL = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Oplog:
    """Its first and last time, and whether the first one moves on already."""

    first: datetime
    last: datetime
    is_full: bool

    @classmethod
    def of(cls, client: MongoClient[Any]) -> Oplog | None:
        """Look at the primary's, or return None where there is none to be seen, as on mongos.

        Raises:
            pymongo.errors.OperationFailure: this user may not read the database `local`.

        """
        if "setName" not in client.admin.command("hello"):
            return None
        local = client["local"]
        statistics = local.command("collStats", "oplog.rs")
        times = [first_time(client), _time(client, DESCENDING)]
        if None in times:
            return None
        full = statistics["size"] >= FULL * statistics.get("maxSize", 0)
        return cls(first=times[0], last=times[1], is_full=full)  # type: ignore[arg-type]

    @property
    def window(self) -> timedelta:
        """How much time lies between its first entry and its last one."""
        return self.last - self.first

    def left_for(self, reached: datetime) -> timedelta | None:
        """Return how much older than a time its first entry is, or None where it is younger."""
        return reached - self.first if reached >= self.first else None


def first_time(client: MongoClient[Any]) -> datetime | None:
    """Return the time of the oldest entry, or None where there is none to be seen, as on mongos.

    Raises:
        pymongo.errors.OperationFailure: this user may not read the database `local`.

    """
    return _time(client, ASCENDING)


def first_stamp(client: MongoClient[Any]) -> Timestamp | None:
    """Return the cluster time of the oldest entry; otherwise as first_time()."""
    return _stamp(client, ASCENDING)


def _time(client: MongoClient[Any], order: int) -> datetime | None:
    stamp = _stamp(client, order)
    return stamp.as_datetime() if stamp else None


def _stamp(client: MongoClient[Any], order: int) -> Timestamp | None:
    found = client["local"]["oplog.rs"].find_one(
        {}, {"ts": 1}, sort=[("$natural", order)], max_time_ms=READ_MS
    )
    stamp: Timestamp | None = found and found["ts"]
    return stamp
