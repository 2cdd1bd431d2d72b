"""MongoDB's error codes that more than one room goes by.

https://www.mongodb.com/docs/manual/reference/error-codes/
"""

from __future__ import annotations

__all__ = [
    "DOCUMENT_VALIDATION",
    "DUPLICATE_KEY",
    "ILLEGAL_OPERATION",
    "INDEX_KEY_SPECS_CONFLICT",
    "INDEX_OPTIONS_CONFLICT",
    "LIFETIME_EXCEEDED",
    "NAMESPACE_EXISTS",
    "NO_SUCH_TRANSACTION",
    "SNAPSHOT_GONE",
    "TIME_EXPIRED",
    "UNAUTHORIZED",
]

# Of a user who may not do this; one who is let in with no rights at all gets it, too.
UNAUTHORIZED = 13
# What a server that is no replica set makes of a transaction.
ILLEGAL_OPERATION = 20
# There is a collection of that name, which somebody else made a moment ago.
NAMESPACE_EXISTS = 48
# MaxTimeMSExpired: it takes longer than was asked for.
TIME_EXPIRED = 50
# SnapshotTooOld, SnapshotUnavailable: the server keeps for some minutes what was.
SNAPSHOT_GONE = frozenset({239, 246})
# There is an index of these fields already, by another name or with other options.
INDEX_OPTIONS_CONFLICT = 85
# There is one by that name, of other fields or with other options.
INDEX_KEY_SPECS_CONFLICT = 86
# A collection's validator does not let a row in.
DOCUMENT_VALIDATION = 121
# It was ended: for its length, as one that hangs, by a session's end, or by an error within it.
NO_SUCH_TRANSACTION = 251
LIFETIME_EXCEEDED = 290
DUPLICATE_KEY = 11000
