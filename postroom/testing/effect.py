"""Effect: how many documents a transaction has written in which collections, not what is in them.

Values are left out on purpose: ids, times and numbers by chance differ from one try to the next.
For the same reason an upsert is an update whether or not it has found its document, and an update
counts what it has found, changed or not.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Effect", "difference", "written"]

# By collection, and what was done there.
Effect = Counter[tuple[str, str]]
INSERTED, UPDATED, REMOVED = "inserted", "updated", "removed"


def written(command: str, collection: str, reply: Mapping[str, Any]) -> Effect:
    """Return what a write has done, by MongoDB's reply to it."""
    return Counter({(collection, kind): count for kind, count in _by_kind(command, reply).items()})


def difference(first: Effect, again: Effect) -> str:
    """Say in words where the second one is not as the first; empty where it is."""
    return "; ".join(
        f"documents {kind} in {collection}: {now} when retried, {count} at first"
        for (collection, kind), count in sorted({**dict.fromkeys(again, 0), **first}.items())
        if (now := again[collection, kind]) != count
    )


def _by_kind(command: str, reply: Mapping[str, Any]) -> dict[str, int]:
    match command:
        case "insert":
            return {INSERTED: reply.get("n", 0)}
        case "update":
            return {UPDATED: reply.get("n", 0)}
        case "delete":
            return {REMOVED: reply.get("n", 0)}
        case "findAndModify":
            last = reply.get("lastErrorObject") or {}
            return {UPDATED if "updatedExisting" in last else REMOVED: last.get("n", 0)}
    return {  # bulkWrite
        INSERTED: reply.get("nInserted", 0),
        UPDATED: reply.get("nMatched", 0) + reply.get("nUpserted", 0),
        REMOVED: reply.get("nDeleted", 0),
    }
