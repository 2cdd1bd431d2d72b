"""MongoDB's own time: what the server says of now, and dates of its replies, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymongo.database import Database

__all__ = ["in_utc", "now"]


def in_utc(at: datetime) -> datetime:
    """Return a date of MongoDB's with its zone, which the driver leaves out in a command's reply.

    `astimezone` would take such a date for this machine's local time.
    """
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def now(database: Database[Any]) -> datetime:
    """Return the time by the server's clock.

    Raises:
        pymongo.errors.PyMongoError: it did not answer.

    """
    return in_utc(database.command("hello")["localTime"])
