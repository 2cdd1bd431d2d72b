"""Repertoires: which events the handlers of a subscription's workers want, as each has told."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pymongo import WriteConcern
from pymongo.read_concern import ReadConcern

from postroom import wire
from postroom.store import expiry_index
from postroom.wire import RepertoireField

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymongo.database import Database

__all__ = ["Repertoires"]

KEEP = timedelta(days=1)
# One that says nothing for so long runs no more.
ALIVE = timedelta(seconds=60)
# And after so long nobody waits any more for one of its kind to be started again.
AWAITED = timedelta(minutes=10)
MOST_WORKERS = 10_000
READ_MS = 1_000


class Repertoires:
    """Tells what one consumer of a subscription handles, and knows what others do."""

    def __init__(self, database: Database[Any], *, subscription: str, worker: str) -> None:
        self._rows = database[wire.REPERTOIRES].with_options(
            read_concern=ReadConcern("majority"), write_concern=WriteConcern("majority")
        )
        self._subscription = subscription
        self._me = {RepertoireField.ID: worker}

    def prepare(self) -> None:
        """Make the index by which rows expire."""
        expiry_index.prepare(
            self._rows,
            RepertoireField.SEEN_AT,
            name=wire.REPERTOIRES_EXPIRY_INDEX,
            seconds=int(KEEP.total_seconds()),
        )

    def tell(self, matches: Sequence[str]) -> None:
        """Say that this consumer runs, and what it handles."""
        started = {"$ifNull": [f"${RepertoireField.STARTED_AT}", "$$NOW"]}
        fields = {
            RepertoireField.SUBSCRIPTION: {"$literal": self._subscription},
            RepertoireField.MATCHES: {"$literal": list(matches)},
            RepertoireField.STARTED_AT: started,
            RepertoireField.SEEN_AT: "$$NOW",
        }
        self._rows.update_one(self._me, [{"$set": fields}], upsert=True)

    def leave(self) -> None:
        """Say that it has left in order."""
        self._rows.update_one(self._me, {"$currentDate": {RepertoireField.LEFT_AT: True}})

    def others(self) -> frozenset[str]:
        """Return what others of the subscription want: those that run, and newer ones that did.

        A newer one that has run within the last minutes counts although it has ended: it may be on
        its way back, while one that is older and has left makes room for this one.
        """
        mine = self._rows.find_one(self._me, {RepertoireField.STARTED_AT: 1}, max_time_ms=READ_MS)
        alive = {"$gte": [f"${RepertoireField.SEEN_AT}", _before(ALIVE)]}
        newer: dict[str, Any] = {"$literal": False}
        if mine is not None:
            started = {"$gt": [f"${RepertoireField.STARTED_AT}", mine[RepertoireField.STARTED_AT]]}
            newer = {"$and": [started, {"$gte": [f"${RepertoireField.SEEN_AT}", _before(AWAITED)]}]}
        has_left = {"$ne": [{"$type": f"${RepertoireField.LEFT_AT}"}, "missing"]}
        runs = {"$and": [alive, {"$not": [has_left]}]}
        found = self._rows.find(
            {
                RepertoireField.SUBSCRIPTION: self._subscription,
                RepertoireField.ID: {"$ne": self._me[RepertoireField.ID]},
                "$expr": {"$or": [runs, newer]},
            },
            {RepertoireField.MATCHES: 1},
            max_time_ms=READ_MS,
        )
        return frozenset(
            each
            for row in found.limit(MOST_WORKERS)
            for each in row.get(RepertoireField.MATCHES) or ()
            if isinstance(each, str)
        )


def _before(time: timedelta) -> dict[str, Any]:
    return {"$subtract": ["$$NOW", int(time.total_seconds() * 1000)]}
