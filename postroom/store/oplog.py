"""The oplog: how far back MongoDB's change streams can begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pymongo import ASCENDING, DESCENDING

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from bson import Timestamp
    from pymongo import MongoClient

__all__ = ["FirstEntry", "Oplog", "first_entry", "first_time"]

READ_MS = 5_000
FULL = 0.9
INITIATION = "initiating set"


class FirstEntry(NamedTuple):
    """The oldest entry: its cluster time, and whether it is the initiation of the replica set."""

    time: Timestamp
    is_initiation: bool


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


def first_entry(client: MongoClient[Any]) -> FirstEntry | None:
    """Return the oldest entry; otherwise as first_time()."""
    found = _entry(client, ASCENDING)
    if found is None:
        return None
    done = found.get("o")
    said = done.get("msg") if isinstance(done, dict) else None
    return FirstEntry(time=found["ts"], is_initiation=said == INITIATION)


def _time(client: MongoClient[Any], order: int) -> datetime | None:
    found = _entry(client, order)
    if found is None:
        return None
    time: datetime = found["ts"].as_datetime()
    return time


def _entry(client: MongoClient[Any], order: int) -> dict[str, Any] | None:
    return client["local"]["oplog.rs"].find_one(
        {}, {"ts": 1, "o.msg": 1}, sort=[("$natural", order)], max_time_ms=READ_MS
    )
