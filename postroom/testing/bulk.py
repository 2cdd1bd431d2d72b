"""Bulk: the operations of a bulk write, done one after another by a collection in memory."""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Any

from pymongo import results
from pymongo.errors import BulkWriteError, DuplicateKeyError, InvalidOperation

from postroom.server_codes import DUPLICATE_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Bulk"]


class Bulk:
    """What operations of PyMongo's add themselves to, as to its own bulk write."""

    def __init__(self, collection: Any, session: Any) -> None:
        self._collection = collection
        self._session = session
        self._calls: list[Callable[[], Mapping[str, int]]] = []
        self._upserted: list[dict[str, Any]] = []

    def add_insert(self, document: Any) -> None:
        """Add an InsertOne."""
        self._add(self._inserted, document)

    # Called by their places, as PyMongo calls its own.

    def add_update(self, query: Any, update: Any, multi: Any, upsert: Any, **options: Any) -> None:
        """Add an UpdateOne or UpdateMany."""
        call = self._collection.update_many if multi else self._collection.update_one
        self._add(self._updated, call, query, update, upsert=bool(upsert), **options)

    def add_replace(self, query: Any, replacement: Any, upsert: Any, **options: Any) -> None:
        """Add a ReplaceOne."""
        call = self._collection.replace_one
        self._add(self._updated, call, query, replacement, upsert=bool(upsert), **options)

    def add_delete(self, query: Any, limit: int, **options: Any) -> None:
        """Add a DeleteOne or DeleteMany."""
        call = self._collection.delete_one if limit else self._collection.delete_many
        self._add(self._deleted, call, query, **options)

    def execute(self) -> results.BulkWriteResult:
        """Do them, up to the first that cannot be done.

        Raises:
            InvalidOperation: there is none, as PyMongo says it.
            BulkWriteError: there is one; those before it stand, unless a transaction is undone.

        """
        if not self._calls:
            raise InvalidOperation("No operations to execute")
        counts = Counter(nInserted=0, nMatched=0, nModified=0, nRemoved=0, nUpserted=0)
        for index, call in enumerate(self._calls):
            try:
                counts.update(call())
            except DuplicateKeyError as error:
                fault = {"index": index, "code": DUPLICATE_KEY, "errmsg": str(error)}
                raise BulkWriteError({**counts, "writeErrors": [fault]}) from error
        found = {**counts, "upserted": self._upserted, "writeErrors": []}
        return results.BulkWriteResult(found, acknowledged=True)

    def _add(self, call: Callable[..., Mapping[str, int]], *args: Any, **options: Any) -> None:
        self._calls.append(functools.partial(call, len(self._calls), *args, **options))

    def _inserted(self, _index: int, document: Any) -> Mapping[str, int]:
        self._collection.insert_one(document, session=self._session)
        return {"nInserted": 1}

    def _updated(
        self, index: int, call: Callable[..., results.UpdateResult], *args: Any, **options: Any
    ) -> Mapping[str, int]:
        done = call(*args, session=self._session, **options)
        if done.did_upsert:
            self._upserted.append({"index": index, "_id": done.upserted_id})
            return {"nUpserted": 1}
        return {"nMatched": done.matched_count, "nModified": done.modified_count}

    def _deleted(
        self, _index: int, call: Callable[..., results.DeleteResult], *args: Any, **options: Any
    ) -> Mapping[str, int]:
        return {"nRemoved": call(*args, session=self._session, **options).deleted_count}
