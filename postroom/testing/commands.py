"""Commands to a database in memory: those that postroom's own writers send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo.errors import BulkWriteError

from postroom import wire
from postroom.testing import plan
from postroom.testing.refusal import not_faked

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["answered"]

# What is the same everywhere, and asks for no answer.
DONE = {"ping", "killSessions", "createIndexes"}


def answered(database: Any, command: Any, session: Any) -> Mapping[str, Any]:
    """Answer a command as MongoDB does.

    Raises:
        NotFaked: it is none that postroom sends.

    """
    first = command if isinstance(command, str) else next(iter(command))
    if first in DONE:
        return {"ok": 1.0}
    match command:
        case {"insert": wire.INBOX | wire.SCHEDULED as collection, "documents": documents}:
            return _inserted(database[collection], documents, session)
        case {"find": name} | {"delete": name} | {"update": name} if name in plan.COLLECTIONS:
            return plan.answered(database, command, session)
    raise not_faked(f"the command {first}")


def _inserted(collection: Any, documents: Any, session: Any) -> Mapping[str, Any]:
    try:
        done = collection.insert_many(documents, session=session)
    except BulkWriteError as error:
        found = error.details
        return {"ok": 1.0, "n": found["nInserted"], "writeErrors": found["writeErrors"]}
    return {"ok": 1.0, "n": len(done.inserted_ids)}
