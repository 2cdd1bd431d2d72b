"""Tailing: the events that were written last, and those that are written now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom.operations import quarantined
from postroom.store.newest_rows import NewestRows, Written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bson import Timestamp
    from pymongo.database import Database

__all__ = ["Tailing", "Written"]


class Tailing:
    """The newest events of an outbox partition, or of all; of a name, or of a key, where given.

    latest() first, then follow(), which goes on behind it. A key is the row's own, or the field
    `key_field` of the data where rows bring none.
    """

    def __init__(
        self,
        database: Database[Any],
        *,
        partition: str | None = None,
        name: str | None = None,
        key: str | None = None,
        key_field: str | None = None,
    ) -> None:
        self._rows = NewestRows(
            database,
            partition=partition,
            name=name,
            keys=[] if key is None else quarantined.forms_of(key),
            key_field=quarantined.searchable(key_field),
        )
        self._since: Timestamp | None = None

    def latest(self, *, limit: int) -> list[Written]:
        """Return the newest events, the last one written at the end.

        Raises:
            pymongo.errors.PyMongoError: MongoDB does not answer.

        """
        self._since = self._rows.now()
        return self._rows.latest(limit=limit)

    def follow(self) -> Iterator[Written | None]:
        """Yield the events that are committed from then on, and None at least once a second.

        Raises:
            pymongo.errors.PyMongoError: MongoDB does not answer, or has ended the change stream.

        """
        return self._rows.follow(self._since or self._rows.now())
