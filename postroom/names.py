"""Names: what subscriptions, outbox partitions and databases may be called."""

from __future__ import annotations

__all__ = ["checked", "database"]

LONGEST = 200
# https://www.mongodb.com/docs/manual/reference/limits/#naming-restrictions, on Unix.
LONGEST_DATABASE_BYTES = 63
NOT_IN_A_DATABASE = frozenset('/\\. "$')
# MongoDB's own, in which no transaction writes; names that differ in case alone are one to it.
NOT_FOR_EVENTS = {"admin", "config", "local"}


def checked(value: str) -> str:
    """Return a name that all services take: a queue's, a topic's and a file's ending may hold it.

    Raises:
        ValueError: it is none.

    """
    # What is printable is no line break, escape code or half of a surrogate pair.
    fits = value.isprintable() and not set(value) & set(" /,") and not _is_quoted(value)
    if not fits or not 0 < len(value) <= LONGEST:
        raise ValueError(
            f"a name has 1 to {LONGEST} characters, no blank, slash or comma among them, nor what "
            "cannot be printed, and no quotation marks around it"
        )
    return value


def _is_quoted(value: str) -> bool:
    # Of a file of variables that is read as it is: nothing of that name is there, and it is made.
    return value[:1] == value[-1:] and value[:1] in {'"', "'"}


def database(value: str) -> str:
    """Return the name of a database that MongoDB takes, and in which events can be kept.

    Raises:
        ValueError: it is none.

    """
    fits = value.isprintable() and not NOT_IN_A_DATABASE & set(value) and not _is_quoted(value)
    if not fits or not 0 < len(value.encode()) <= LONGEST_DATABASE_BYTES:
        raise ValueError(
            f"a database's name has 1 to {LONGEST_DATABASE_BYTES} bytes, no blank nor one of "
            '/ \\ . " $ among them, nor what cannot be printed'
        )
    if value.casefold() in NOT_FOR_EVENTS:
        raise ValueError("that database is MongoDB's own, and no events can be kept in it")
    return value
